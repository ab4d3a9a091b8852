"""Masks of inpainting, white where something new is drawn: read, blurred, cropped to, filled, put back.

Each function does what its namesake in modules/processing.py or modules/masking.py of the WebUI does.
"""

import cv2
import numpy as np
from PIL import Image, ImageFilter, ImageOps

Box = tuple[int, int, int, int]

# Each pair: how far colours are spread over the hole, and how often that is laid over the ones before.
FILL_ROUNDS = ((256, 1), (64, 1), (16, 2), (4, 4), (2, 2), (0, 1))
# The kernel of a Gaussian blur reaches this many deviations.
REACH = 2.5
HALF = 128


def binary_mask(picture: Image.Image, is_rounded: bool) -> Image.Image:
    """A mask of mode ``L``: the transparency of a picture that has some, else how bright it is."""
    if picture.mode == "RGBA" and picture.getchannel("A").getextrema() != (255, 255):
        alpha = picture.getchannel("A")
        return alpha.point(lambda value: 255 if value > HALF else 0) if is_rounded else alpha
    return picture.convert("L")


def blur(mask: Image.Image, x: float, y: float) -> Image.Image:
    """Softens the edge of a mask, sideways by `x` and upwards by `y` pixels."""
    pixels = np.asarray(mask)
    if x > 0:
        pixels = np.asarray(cv2.GaussianBlur(pixels, (_kernel(x), 1), x))
    if y > 0:
        pixels = np.asarray(cv2.GaussianBlur(pixels, (1, _kernel(y)), y))
    return Image.fromarray(pixels)


def strengthen(mask: Image.Image) -> Image.Image:
    """The mask twice as strong: what is half new counts as new when the old is laid over."""
    return mask.point(lambda value: min(255, 2 * value))


def crop_region(mask: Image.Image, padding: int, size: tuple[int, int]) -> Box | None:
    """The box round what is white, `padding` wider, in the proportions of `size`; None for an empty mask."""
    box = mask.getbbox()
    if box is None:
        return None
    left, top, right, bottom = box
    box = (
        max(left - padding, 0),
        max(top - padding, 0),
        min(right + padding, mask.width),
        min(bottom + padding, mask.height),
    )
    return _expanded(box, size, mask.size)


def fill(picture: Image.Image, mask: Image.Image) -> Image.Image:
    """Fills what the mask covers with the colours round it."""
    kept = Image.new("RGBa", picture.size)
    kept.paste(picture.convert("RGBA").convert("RGBa"), mask=ImageOps.invert(mask))
    result = Image.new("RGBA", picture.size)
    for radius, repeats in FILL_ROUNDS:
        spread = kept.filter(ImageFilter.GaussianBlur(radius)).convert("RGBA")
        for _ in range(repeats):
            result.alpha_composite(spread)
    return result.convert("RGB")


def overlay(picture: Image.Image, mask: Image.Image) -> Image.Image:
    """What is kept of a picture: transparent where the mask covers it."""
    kept = Image.new("RGBa", picture.size)
    kept.paste(picture.convert("RGBA").convert("RGBa"), mask=ImageOps.invert(mask))
    return kept.convert("RGBA")


def put_back(made: Image.Image, kept: Image.Image, box: Box | None) -> Image.Image:
    """The new picture, in its place `box` of the old one, under what is kept of that."""
    base = made.convert("RGBA")
    if box is not None:
        left, top, right, bottom = box
        base = Image.new("RGBA", kept.size)
        base.paste(made.resize((right - left, bottom - top), Image.Resampling.LANCZOS), (left, top))
    base.alpha_composite(kept)
    return base.convert("RGB")


def _kernel(deviation: float) -> int:
    return 2 * int(REACH * deviation + 0.5) + 1


def _expanded(box: Box, size: tuple[int, int], limits: tuple[int, int]) -> Box:
    """Widens a box until it has the proportions of `size`, inside the picture where that is possible."""
    left, top, right, bottom = box
    ratio = size[0] / size[1]
    if (right - left) / (bottom - top) > ratio:
        top, bottom = _widened(top, bottom, int((right - left) / ratio), limits[1])
    else:
        left, right = _widened(left, right, int((bottom - top) * ratio), limits[0])
    return left, top, right, bottom


def _widened(first: int, last: int, wanted: int, limit: int) -> tuple[int, int]:
    more = max(0, wanted - (last - first))
    first, last = first - more // 2, last + more - more // 2
    if last > limit:
        first, last = first - (last - limit), limit
    if first < 0:
        first, last = 0, min(last - first, limit)
    return first, last
