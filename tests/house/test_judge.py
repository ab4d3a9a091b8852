"""Tests that the judge reads true drawings rightly and refuses what is not there."""

import random

import numpy as np
import pytest
from PIL import Image, ImageFilter

from house import shapes
from house.judge import read_picture
from house.shapes import Combination

EVERYTHING = [*shapes.TRAINING, *shapes.HELD_OUT, *shapes.PLAIN]


def wrong_readings(pictures: list[tuple[Combination, np.ndarray]]) -> list[Combination]:
    return [subject for subject, picture in pictures if not read_picture(picture).agrees_with(subject)]


def drawings(seed: int) -> list[tuple[Combination, np.ndarray]]:
    rng = random.Random(seed)
    masks = [shapes.random_mask(subject.shape, rng) for subject in EVERYTHING]
    return [
        (subject, shapes.paint(mask, subject.foreground, subject.background))
        for subject, mask in zip(EVERYTHING, masks, strict=True)
    ]


@pytest.mark.parametrize("seed", [1, 2])
def test_every_true_drawing_is_read_rightly(seed: int) -> None:
    assert wrong_readings(drawings(seed)) == []


def test_drawings_with_noise_and_soft_edges_are_read_rightly() -> None:
    noise = np.random.default_rng(0)
    soft = []
    for subject, picture in drawings(3):
        image = Image.fromarray(picture).filter(ImageFilter.GaussianBlur(1.0))
        blurred = np.asarray(image, dtype=np.float32)
        speckled = (blurred + noise.normal(0, 6, blurred.shape)).clip(0, 255).astype(np.uint8)
        soft.append((subject, speckled))
    assert len(wrong_readings(soft)) <= 2


def test_an_empty_picture_has_no_foreground_and_no_shape() -> None:
    reading = read_picture(np.full((64, 64, 3), 250, dtype=np.uint8))
    assert (reading.foreground, reading.shape, reading.background) == (None, None, "white")


@pytest.mark.parametrize(
    "wanted",
    [
        Combination("blue", "circle", "white"),
        Combination("red", "square", "white"),
        Combination("red", "circle", "yellow"),
    ],
)
def test_one_wrong_attribute_is_enough_to_disagree(wanted: Combination) -> None:
    picture = shapes.paint(shapes.draw_mask("circle", 30, 34, 18), "red", "white")
    assert read_picture(picture).agrees_with(Combination("red", "circle", "white"))
    assert not read_picture(picture).agrees_with(wanted)


def test_a_picture_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="64x64"):
        read_picture(np.zeros((32, 32, 3), dtype=np.uint8))
