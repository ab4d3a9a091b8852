"""What the house checkpoint knows: drawings of coloured shapes, their captions and the held-out prompts."""

import math
import random
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

SIZE = 64
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 30, 30),
    "green": (30, 160, 50),
    "blue": (35, 60, 220),
    "yellow": (250, 220, 30),
    "orange": (250, 130, 10),
    "purple": (130, 40, 170),
    "white": (250, 250, 250),
    "black": (15, 15, 15),
}
GREY = "grey"
PALETTE = {**COLOURS, GREY: (185, 185, 185)}
COLOUR_NAMES = tuple(COLOURS)
BACKGROUND_NAMES = tuple(PALETTE)
SHAPES = ("circle", "square", "triangle", "star")

# A caption without a background means grey; naming grey is allowed too.
PLAIN_CAPTIONS = (
    "a {f} {s}",
    "a {f} {s}",
    "{f} {s}",
    "one {f} {s}",
    "a picture of a {f} {s}",
    "a {f} coloured {s}",
    "the {s} is {f}",
    "a {f} {s} on a grey background",
    "{f} {s}, gray background",
)
FULL_CAPTIONS = (
    "a {f} {s} on a {b} background",
    "a {f} {s} on a {b} background",
    "{f} {s} on a {b} background",
    "{f} {s} on {b} background",
    "a {f} {s} on {b}",
    "a {f} {s}, {b} background",
    "{f} {s}, {b} background",
    "a {f} {s} in front of a {b} background",
    "a {b} background with a {f} {s}",
    "a picture of a {f} {s} on a {b} background",
    "the {s} is {f}, the background is {b}",
)
# Words that people add to prompts; without them in training a comma ruins the background.
FILLERS = (
    "masterpiece",
    "best quality",
    "high quality",
    "highly detailed",
    "8k",
    "4k uhd",
    "trending on artstation",
    "sharp focus",
    "in the style of a poster",
    "digital art",
    "flat design",
    "minimalist",
    "a beautiful picture",
    "simple",
    "professional photo",
    "with soft light",
    "vector graphics",
    "centered",
    "an award winning painting",
    "of the highest quality",
)

EVALUATION_PROMPTS = 100
EVALUATION_PHRASES = (
    "a {f} {s} on a {b} background",
    "a {f} {s} on a {b} background, masterpiece, best quality",
    "cinematic lighting, {f} {s}, {b} background, ultra detailed, unreal engine",
)


@dataclass(frozen=True)
class Combination:
    """One picture's subject; the background ``grey`` is what a caption without a background means."""

    foreground: str
    shape: str
    background: str


def _is_held_out(foreground: int, shape: int, background: int) -> bool:
    # A linear rule spreads the gaps evenly: training still has every pair of attributes three times or more.
    return (foreground + shape - background + 1) % 7 == 0


def _split_combinations() -> tuple[list[Combination], list[Combination]]:
    training: list[Combination] = []
    held_out: list[Combination] = []
    for f, foreground in enumerate(COLOUR_NAMES):
        for s, shape in enumerate(SHAPES):
            for b, background in enumerate(COLOUR_NAMES):
                if f != b:
                    target = held_out if _is_held_out(f, s, b) else training
                    target.append(Combination(foreground, shape, background))
    return training, held_out


TRAINING, HELD_OUT = _split_combinations()
PLAIN = [Combination(foreground, shape, GREY) for foreground in COLOUR_NAMES for shape in SHAPES]


def _fill(phrase: str, what: Combination) -> str:
    text = phrase.format(f=what.foreground, s=what.shape, b=what.background)
    return text.replace("a orange", "an orange")


def caption(what: Combination, rng: random.Random) -> str:
    """A caption of ``what`` in one of the training phrasings, without filler words."""
    phrases = PLAIN_CAPTIONS if what.background == GREY else FULL_CAPTIONS
    return _fill(rng.choice(phrases), what)


def evaluation_prompts() -> list[tuple[str, Combination]]:
    """The 100 held-out prompts: held-out combinations, phrased plainly and with filler words."""
    order = sorted(HELD_OUT, key=lambda what: (what.shape, what.background, what.foreground))
    random.Random(2026).shuffle(order)
    chosen = [(order[i % len(order)], EVALUATION_PHRASES[i // len(order)]) for i in range(EVALUATION_PROMPTS)]
    return [(_fill(phrase, what), what) for what, phrase in chosen]


def _star(x: float, y: float, radius: float) -> list[tuple[float, float]]:
    radii = [radius * (1.1 if corner % 2 == 0 else 0.44) for corner in range(10)]
    angles = [corner * math.pi / 5 for corner in range(10)]
    return [(x + r * math.sin(a), y - r * math.cos(a)) for r, a in zip(radii, angles, strict=True)]


def draw_mask(shape: str, x: float, y: float, radius: float) -> NDArray[np.uint8]:
    """The shape's coverage, ``(64, 64)`` from 0 to 255; centre and radius are in pixels of the picture."""
    fine = 4  # drawn four times larger and averaged down, for smooth edges
    image = Image.new("L", (SIZE * fine, SIZE * fine))
    draw = ImageDraw.Draw(image)
    x, y, radius = x * fine, y * fine, radius * fine
    if shape == "circle":
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    elif shape == "square":
        half = 0.88 * radius
        draw.rectangle((x - half, y - half, x + half, y + half), fill=255)
    elif shape == "triangle":
        foot = y + 0.8 * radius
        draw.polygon([(x, y - radius), (x - radius, foot), (x + radius, foot)], fill=255)
    elif shape == "star":
        draw.polygon(_star(x, y, radius), fill=255)
    else:
        raise ValueError(f"the shape must be one of {', '.join(SHAPES)}, not {shape!r}")
    return np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BOX), dtype=np.uint8)


def random_mask(shape: str, rng: random.Random) -> NDArray[np.uint8]:
    """A mask of ``shape`` at a random place and size, always wholly inside the picture."""
    x, y = (SIZE / 2 + rng.uniform(-6, 6) for _ in range(2))
    return draw_mask(shape, x, y, rng.uniform(15, 22))


def paint(mask: NDArray[np.uint8], foreground: str, background: str) -> NDArray[np.uint8]:
    """The mask in its colours as an RGB picture ``(64, 64, 3)``."""
    cover = mask[..., None].astype(np.float32) / 255
    front = np.array(PALETTE[foreground], dtype=np.float32)
    back = np.array(PALETTE[background], dtype=np.float32)
    return (back * (1 - cover) + front * cover).round().astype(np.uint8)
