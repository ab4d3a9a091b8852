"""Noise of a seed, mixed with another's and moved to another size; and what that does to pictures."""

from typing import Any

import numpy as np
import pytest
import torch

from gpu_worker.noise import Variation, first, generator
from gpu_worker.pipelines import ModelMemory
from tests.gpu_worker import house

SHAPE = (4, 8, 8)


def noise(**variation: Any) -> torch.Tensor:
    return first(SHAPE, 5, generator(5), Variation(subseed=6, **variation))


def test_a_variation_lies_between_two_seeds_and_is_as_strong() -> None:
    own, other, half = noise(), noise(strength=1.0), noise(strength=0.5)
    assert torch.equal(own, torch.randn(SHAPE, generator=generator(5)))
    assert torch.allclose(other, torch.randn(SHAPE, generator=generator(6)), atol=1e-5)
    to_own, to_other = ((half - end).norm() for end in (own, other))
    assert float(to_own) == pytest.approx(float(to_other), rel=0.2)
    assert float(half.std()) == pytest.approx(float(own.std()), rel=0.15)


@pytest.mark.parametrize("size", [(4, 6), (16, 16), (4, 16)])
def test_the_middle_is_the_noise_of_the_other_size(size: tuple[int, int]) -> None:
    other = torch.randn((4, *size), generator=generator(5))
    moved = noise(size=size)
    assert moved.shape == SHAPE
    assert torch.equal(moved[:, 3:5, 3:5], other[:, size[0] // 2 - 1 :, size[1] // 2 - 1 :][:, :2, :2])


def make(memory: ModelMemory, **parameters: Any) -> Any:
    return house.run(memory, "txt2img", prompt="a red circle", **parameters)


def test_variations_of_one_seed_stay_near_it(memory: ModelMemory) -> None:
    own = make(memory)
    near = make(memory, subseed=11, subseed_strength=0.1)
    far = make(memory, subseed=11, subseed_strength=0.9)
    distances = [
        np.abs(house.pixels(one.pictures[0].image) - house.pixels(own.pictures[0].image)).mean()
        for one in (near, far)
    ]
    assert 0 < distances[0] < distances[1]
    assert "Variation seed: 11, Variation seed strength: 0.1" in near.info["infotexts"][0]


def test_pictures_of_a_job_are_variations_of_the_same_seed(memory: ModelMemory) -> None:
    made = make(memory, subseed=11, subseed_strength=0.3, batch_size=2)
    assert made.info["all_seeds"] == [7, 7]
    assert made.info["all_subseeds"] == [11, 12]
    alone = make(memory, subseed=12, subseed_strength=0.3)
    difference = house.pixels(made.pictures[1].image) - house.pixels(alone.pictures[0].image)
    assert np.abs(difference).max() <= 1


def test_a_resized_seed_keeps_its_place_in_the_middle(memory: ModelMemory) -> None:
    made = make(memory, width=96, seed_resize_from_w=64, seed_resize_from_h=64)
    assert "Seed resize from: 64x64" in made.info["infotexts"][0]
    plain = make(memory, width=96)
    assert np.abs(house.pixels(made.pictures[0].image) - house.pixels(plain.pictures[0].image)).mean() > 1
