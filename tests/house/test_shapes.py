"""Tests of the drawings, captions and held-out prompts of the house checkpoint."""

import random

import numpy as np
import pytest

from house import shapes

PAIRS = [("foreground", "shape"), ("foreground", "background"), ("shape", "background")]


def test_held_out_combinations_never_occur_in_training() -> None:
    assert set(shapes.TRAINING) & set(shapes.HELD_OUT) == set()
    assert len(shapes.TRAINING) + len(shapes.HELD_OUT) == 8 * 7 * 4
    assert len(shapes.HELD_OUT) == 36


@pytest.mark.parametrize("pair", PAIRS)
def test_training_shows_every_pair_of_attributes_of_a_held_out_combination(pair: tuple[str, str]) -> None:
    def pairs(combinations: list[shapes.Combination]) -> list[tuple[str, ...]]:
        return [tuple(getattr(what, name) for name in pair) for what in combinations]

    seen = pairs(shapes.TRAINING)
    assert min(seen.count(wanted) for wanted in pairs(shapes.HELD_OUT)) >= 3


def test_the_hundred_prompts_are_distinct_held_out_and_always_the_same() -> None:
    prompts = shapes.evaluation_prompts()
    assert len({text for text, _ in prompts}) == 100
    assert {what for _, what in prompts} == set(shapes.HELD_OUT)
    assert prompts == shapes.evaluation_prompts()
    assert any(text.endswith(", masterpiece, best quality") for text, _ in prompts)


def test_a_prompt_names_its_three_attributes() -> None:
    for text, what in shapes.evaluation_prompts():
        assert f"{what.foreground} {what.shape}" in text
        assert f"{what.background} background" in text


def test_captions_say_an_orange() -> None:
    rng = random.Random(0)
    captions = {shapes.caption(shapes.Combination("orange", "star", "blue"), rng) for _ in range(200)}
    assert "an orange star on a blue background" in captions
    assert not any("a orange" in text for text in captions)


@pytest.mark.parametrize("shape", shapes.SHAPES)
def test_a_random_drawing_never_touches_the_border(shape: str) -> None:
    rng = random.Random(4)
    for _ in range(50):
        mask = shapes.random_mask(shape, rng)
        border = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
        assert border.max() == 0
        assert mask.max() == 255


def test_paint_puts_each_colour_in_its_place() -> None:
    picture = shapes.paint(shapes.draw_mask("square", 32, 32, 20), "green", "orange")
    assert tuple(picture[32, 32]) == shapes.COLOURS["green"]
    assert tuple(picture[0, 0]) == shapes.COLOURS["orange"]


def test_an_unknown_shape_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="'hexagon'"):
        shapes.draw_mask("hexagon", 32, 32, 20)
