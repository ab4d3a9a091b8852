"""Masks: where the work is done in a picture, and what is put back over it."""

import numpy as np
import pytest
from PIL import Image

from gpu_worker import masks


def boxed(size: tuple[int, int], box: masks.Box) -> Image.Image:
    mask = Image.new("L", size, 0)
    mask.paste(255, box)
    return mask


@pytest.mark.parametrize(
    ("box", "padding", "size", "wanted"),
    [
        ((40, 40, 60, 60), 0, (64, 64), (40, 40, 60, 60)),
        ((40, 40, 60, 60), 5, (64, 64), (35, 35, 65, 65)),
        ((40, 40, 60, 60), 0, (128, 64), (30, 40, 70, 60)),
        ((40, 40, 60, 60), 0, (64, 128), (40, 30, 60, 70)),
        ((0, 40, 20, 60), 0, (128, 64), (0, 40, 40, 60)),
        ((80, 40, 100, 60), 0, (128, 64), (60, 40, 100, 60)),
        ((0, 0, 100, 10), 0, (64, 64), (0, 0, 100, 100)),
    ],
)
def test_the_crop_has_the_proportions_of_the_picture_that_is_made(
    box: masks.Box, padding: int, size: tuple[int, int], wanted: masks.Box
) -> None:
    assert masks.crop_region(boxed((100, 100), box), padding, size) == wanted


def test_an_empty_mask_has_no_crop() -> None:
    assert masks.crop_region(Image.new("L", (10, 10), 0), 4, (64, 64)) is None


def test_a_mask_is_read_from_transparency_or_from_brightness() -> None:
    drawn = Image.new("RGBA", (4, 1), (0, 0, 0, 0))
    drawn.putpixel((1, 0), (0, 0, 0, 200))
    drawn.putpixel((2, 0), (0, 0, 0, 100))
    assert list(masks.binary_mask(drawn, is_rounded=True).tobytes()) == [0, 255, 0, 0]
    assert list(masks.binary_mask(drawn, is_rounded=False).tobytes()) == [0, 200, 100, 0]
    grey = Image.new("RGB", (1, 1), (77, 77, 77))
    assert masks.binary_mask(grey, is_rounded=True).getpixel((0, 0)) == 77


def test_a_blur_ends_at_its_kernel() -> None:
    soft = np.asarray(masks.blur(boxed((40, 40), (20, 0, 40, 40)), 4, 0))
    assert soft[0, 20 - 11] == 0
    assert 0 < soft[0, 19] < soft[0, 20] < 255
    assert (soft == soft[0]).all()


def test_filling_spreads_the_colours_round_the_hole() -> None:
    picture = Image.new("RGB", (64, 64), (200, 100, 50))
    mask = boxed((64, 64), (20, 20, 44, 44))
    picture.paste((0, 0, 0), (20, 20, 44, 44))
    filled = np.asarray(masks.fill(picture, mask), dtype=int)
    assert np.abs(filled - (200, 100, 50)).max() <= 8


def test_the_old_picture_lies_over_the_new_one_but_for_the_mask() -> None:
    old = Image.new("RGB", (20, 20), (10, 20, 30))
    mask = boxed((20, 20), (5, 5, 15, 15))
    made = masks.put_back(Image.new("RGB", (64, 64), (200, 0, 0)), masks.overlay(old, mask), (5, 5, 15, 15))
    assert made.getpixel((4, 4)) == (10, 20, 30)
    assert made.getpixel((5, 5)) == made.getpixel((14, 14)) == (200, 0, 0)
    assert made.getpixel((15, 15)) == (10, 20, 30)
