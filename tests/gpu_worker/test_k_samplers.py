"""The samplers on a model whose right answer is known: pictures whose values are normal of deviation 0.5."""

from typing import Any

import pytest
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    LMSDiscreteScheduler,
)

from gpu_worker.noise_level import noise_level
from gpu_worker.sampler_options import SamplerOptions
from gpu_worker.samplers import SAMPLERS, Sampling, make_scheduler
from gpu_worker.single_file import SCHEDULER_CONFIG

BASE = SCHEDULER_CONFIG | {"prediction_type": "epsilon"}
OURS = [name for name, sampler in SAMPLERS.items() if sampler.algorithm is not None]
NOISY = [name for name in OURS if SAMPLERS[name].eta is not None]
STILL = [name for name in OURS if SAMPLERS[name].eta is None]
DEVIATION = 0.5


def run(
    name: str, steps: int = 300, start: int = 0, schedule: str = "Karras", **options: Any
) -> torch.Tensor:
    """Ten thousand values, made by a model that foresees as well as can be foreseen."""
    scheduler = make_scheduler(Sampling(name, "Karras", "Karras"), BASE, SamplerOptions(**options))
    scheduler.set_timesteps(steps)
    position = start * scheduler.order
    scheduler.set_begin_index(position)
    generator = torch.Generator().manual_seed(1)
    level = float(scheduler.sigmas[position])
    spread = (DEVIATION**2 + level**2) ** 0.5
    x = torch.randn(1, 4, 50, 50, generator=generator, dtype=torch.float64) * spread
    for index in range(position, len(scheduler.timesteps)):
        sigma = float(scheduler.sigmas[index])
        seen = scheduler.scale_model_input(x) * (sigma**2 + 1) ** 0.5
        clean = seen * DEVIATION**2 / (DEVIATION**2 + sigma**2)
        x = scheduler.step((seen - clean) / sigma, scheduler.timesteps[index], x, generator=[generator])[0]
    return x


def start_values() -> torch.Tensor:
    return torch.randn(1, 4, 50, 50, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("name", STILL)
def test_samplers_without_noise_find_the_one_answer(name: str) -> None:
    """The exact solution keeps each value's place in the distribution."""
    assert torch.allclose(run(name), start_values() * DEVIATION, atol=0.05)


@pytest.mark.parametrize("name", NOISY)
def test_samplers_with_noise_keep_the_pictures_distribution(name: str) -> None:
    made = run(name)
    assert float(made.std()) == pytest.approx(DEVIATION, rel=0.06)
    assert not torch.allclose(made, start_values() * DEVIATION, atol=0.3)


@pytest.mark.parametrize("name", NOISY)
def test_without_eta_no_noise_comes_back(name: str) -> None:
    assert torch.allclose(run(name, eta=0.0), start_values() * DEVIATION, atol=0.05)


@pytest.mark.parametrize("name", NOISY)
def test_more_noise_makes_more_contrast(name: str) -> None:
    assert float(run(name, s_noise=1.1).std()) > float(run(name).std()) * 1.02


@pytest.mark.parametrize("name", ["Euler", "Heun", "DPM2"])
def test_churned_noise_is_taken_away_again(name: str) -> None:
    made = run(name, s_churn=100.0)
    assert float(made.std()) == pytest.approx(DEVIATION, rel=0.1)
    assert not torch.allclose(made, run(name), atol=0.3)
    elsewhere = run(name, s_churn=100.0, s_tmin=20.0)
    assert torch.equal(elsewhere, run(name))


@pytest.mark.parametrize("name", OURS)
def test_a_start_on_the_way_ends_at_the_same_distribution(name: str) -> None:
    churn = 20.0 if SAMPLERS[name].has_churn else 0.0
    assert float(run(name, start=150, s_churn=churn).std()) == pytest.approx(DEVIATION, rel=0.06)


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("Euler", EulerDiscreteScheduler),
        ("Heun", HeunDiscreteScheduler),
        ("LMS", LMSDiscreteScheduler),
        ("DPM++ 2M", DPMSolverMultistepScheduler),
    ],
)
def test_steps_are_those_of_diffusers(name: str, theirs: Any) -> None:
    keys = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule")
    other = theirs(**{key: BASE[key] for key in keys}, use_karras_sigmas=True)
    ours = make_scheduler(Sampling(name, "Karras", "Karras"), BASE)
    for scheduler in (ours, other):
        scheduler.set_timesteps(8)
    noise, prediction = torch.randn(2, 1, 4, 8, 8)
    nothing = torch.zeros_like(noise)
    latents = [noise_level(scheduler, 0).noised(nothing, noise) for scheduler in (ours, other)]
    for times in zip(ours.timesteps, other.timesteps, strict=True):
        latents = [
            scheduler.step(prediction, time, x, return_dict=False)[0]
            for scheduler, time, x in zip((ours, other), times, latents, strict=True)
        ]
    assert torch.allclose(latents[0], latents[1], atol=1e-3)
