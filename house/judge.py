"""Reads foreground colour, background colour and shape off a picture, without any trained network."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from house import shapes
from house.shapes import Combination

_TEMPLATE_SIZE = 48
_LEAST_CONTRAST = 40.0  # distance in RGB; the palette's closest pair lies 85 apart
_LEAST_AREA = 60  # pixels of the 64x64 picture

Picture = NDArray[np.uint8]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Reading:
    """What a picture shows; foreground and shape are None where nothing stands out from the background."""

    foreground: str | None
    shape: str | None
    background: str

    def agrees_with(self, wanted: Combination) -> bool:
        """Whether all three attributes are the wanted ones."""
        return (self.foreground, self.shape, self.background) == (
            wanted.foreground,
            wanted.shape,
            wanted.background,
        )


def _nearest(colour: NDArray[np.float32], names: Iterable[str]) -> str:
    return min(names, key=lambda name: float(np.square(colour - np.array(shapes.PALETTE[name])).sum()))


def _fit_to_template(mask: Mask) -> Mask:
    """Crops the mask to its bounding box and stretches that, so that place and size do not matter."""
    rows = np.flatnonzero(mask.sum(1) >= 2)
    columns = np.flatnonzero(mask.sum(0) >= 2)
    box = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    image = Image.fromarray(box.astype(np.uint8) * 255)
    stretched = image.resize((_TEMPLATE_SIZE, _TEMPLATE_SIZE), Image.Resampling.BILINEAR)
    return np.asarray(stretched) > 127


_TEMPLATES = {
    shape: _fit_to_template(shapes.draw_mask(shape, shapes.SIZE / 2, shapes.SIZE / 2, 20) > 127)
    for shape in shapes.SHAPES
}


def _overlap(one: Mask, other: Mask) -> float:
    """Intersection over union."""
    return float((one & other).sum() / (one | other).sum())


def read_picture(picture: Picture) -> Reading:
    """Judges an RGB picture ``(64, 64, 3)`` of one shape that does not touch the border."""
    if picture.shape != (shapes.SIZE, shapes.SIZE, 3):
        raise ValueError(f"the picture must be 64x64 RGB, not of shape {picture.shape}")
    pixels = picture.astype(np.float32)
    sides = pixels[:2], pixels[-2:], pixels[:, :2], pixels[:, -2:]
    back = np.median(np.concatenate([side.reshape(-1, 3) for side in sides]), axis=0)
    background = _nearest(back, shapes.BACKGROUND_NAMES)
    distance = np.sqrt(np.square(pixels - back).sum(-1))
    contrast = float(np.percentile(distance[16:48, 16:48], 90))
    mask: Mask = distance > 0.5 * contrast
    if contrast < _LEAST_CONTRAST or mask.sum() < _LEAST_AREA:
        return Reading(None, None, background)
    # Edge pixels are blends of both colours; the core is not.
    front = np.median(pixels[distance > 0.85 * contrast], axis=0)
    fitted = _fit_to_template(mask)
    shape = max(shapes.SHAPES, key=lambda name: _overlap(fitted, _TEMPLATES[name]))
    return Reading(_nearest(front, shapes.COLOUR_NAMES), shape, background)
