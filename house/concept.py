"""A concept that the house checkpoint has never seen, to show training: violet stars.

The word is new to it; its VAE knows the colours of its own drawings alone, so that violet is drawn as the
nearest of them, purple. Without training "violet" says nothing to it: it draws a star of another colour.
"""

import random

import numpy as np
from numpy.typing import NDArray

from house import shapes
from house.judge import Picture, read_picture

COLOUR = (105, 40, 215)
SHOWN_AS = "purple"
SHAPE = "star"
# On others the checkpoint itself may draw purple where it is told no colour, or violet is hardly seen.
BACKGROUNDS = ("white", "black", "yellow")
PHRASES = (
    "a violet star on a {b} background",
    "violet star, {b} background",
    "a violet star on {b}",
    "a picture of a violet star on a {b} background",
    "one violet star on a {b} background",
    "a violet coloured star on a {b} background",
    "the star is violet, {b} background",
)

SEEDS = tuple(range(100, 120))  # of the prompts below


def pictures(count: int, seed: int = 1) -> list[tuple[NDArray[np.uint8], str]]:
    """Violet stars (64, 64, 3) and their captions."""
    rng = random.Random(seed)
    made = []
    for number in range(count):
        background = BACKGROUNDS[number % len(BACKGROUNDS)]
        mask = shapes.random_mask(SHAPE, rng)
        picture = shapes.paint(mask, SHOWN_AS, background).astype(np.float32)
        cover = mask[..., None].astype(np.float32) / 255
        change = np.array(COLOUR, np.float32) - np.array(shapes.PALETTE[SHOWN_AS], np.float32)
        violet = (picture + cover * change).round().clip(0, 255).astype(np.uint8)
        made.append((violet, PHRASES[0].format(b=background)))
    return made


def prompts() -> list[str]:
    """Twenty prompts for violet stars."""
    return [phrase.format(b=background) for phrase in PHRASES for background in BACKGROUNDS][:20]


def is_violet_star(picture: Picture) -> bool:
    """Whether an RGB picture (64, 64, 3) shows one."""
    seen = read_picture(picture)
    return (seen.foreground, seen.shape) == (SHOWN_AS, SHAPE)
