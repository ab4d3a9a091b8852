"""The samplers on a model whose right answer is known: pictures whose values are normal of deviation 0.5."""

import itertools
from itertools import pairwise
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
from gpu_worker.schedules import NoiseTable, levels
from gpu_worker.single_file import SCHEDULER_CONFIG

BASE = SCHEDULER_CONFIG | {"prediction_type": "epsilon"}
OURS = [name for name, sampler in SAMPLERS.items() if sampler.algorithm is not None]
NOISY = [name for name in OURS if SAMPLERS[name].eta is not None]
STILL = [name for name in OURS if SAMPLERS[name].eta is None]
DEVIATION = 0.5
TRAINED = EulerDiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
TABLE = NoiseTable.from_alphas(TRAINED.alphas_cumprod.double().numpy())


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


def exact(name: str, steps: int, **options: Any) -> torch.Tensor:
    """What the finished values are made of: the share of the start, then those of each drawing of noise.

    For pictures of a normal distribution the best model is linear, so that a sampler only adds shares of
    independent normal numbers: its deviation is the length of this vector, without any drawing.
    """
    chosen = list(levels("Karras", steps, TABLE))
    parts, drawn = torch.eye(5 * steps, dtype=torch.float64), itertools.count(1)
    x = parts[0] * (DEVIATION**2 + chosen[0] ** 2) ** 0.5
    algorithm = SAMPLERS[name].algorithm
    work = algorithm(x, chosen, SamplerOptions(**options), lambda: parts[next(drawn)])
    seen, sigma = next(work)
    while True:
        try:
            seen, sigma = work.send((seen, seen * DEVIATION**2 / (DEVIATION**2 + sigma**2)))
        except StopIteration as end:
            return torch.as_tensor(end.value)


def error(name: str, steps: int, **options: Any) -> float:
    """How much more the deviation is than that of the best answer at the lowest level, relatively."""
    least = float(levels("Karras", steps, TABLE)[-2])
    best = DEVIATION / (1 + (least / DEVIATION) ** 2) ** 0.5
    return float(exact(name, steps, **options).norm()) / best - 1


# Methods of the first order halve their error with twice the steps; others are exact to 0.4 % long before.
FIRST_ORDER = ("Euler", "Euler a", "DPM++ SDE")


@pytest.mark.parametrize("name", OURS)
def test_the_distribution_of_pictures_is_kept(name: str) -> None:
    few, many = error(name, 100), error(name, 200)
    if name in FIRST_ORDER:
        assert few / many == pytest.approx(2, rel=0.1)
        assert abs(many) < 0.02
    else:
        assert abs(many) < 0.004


@pytest.mark.parametrize("name", NOISY)
def test_with_eta_the_picture_is_made_of_noise_that_came_back(name: str) -> None:
    """Of the noise at the start three hundredths are left, without eta all of it."""
    assert float(exact(name, 200)[0]) / DEVIATION == pytest.approx(0.034, abs=0.002)
    still = exact(name, 200, eta=0.0)
    assert float(still[0]) / DEVIATION == pytest.approx(1, abs=0.02)
    assert float(still[1:].norm()) == 0


@pytest.mark.parametrize("churn", [5.0, 40.0, 100.0])
@pytest.mark.parametrize("noise", [1.0, 1.05])
def test_eulers_churn_is_the_papers(churn: float, noise: float) -> None:
    """Algorithm 2 of https://arxiv.org/abs/2206.00364, for the variance of a normal distribution's values."""
    steps, least, most = 60, 0.5, 9.0
    chosen = levels("Karras", steps, TABLE)
    variance = DEVIATION**2 + chosen[0] ** 2
    for sigma, after in pairwise(chosen):
        gamma = min(churn / steps, 2**0.5 - 1) if least <= sigma <= most else 0.0
        raised = sigma * (1 + gamma)
        variance += noise**2 * (raised**2 - sigma**2)
        variance *= (1 + (after - raised) * raised / (DEVIATION**2 + raised**2)) ** 2
    options = {"s_churn": churn, "s_noise": noise, "s_tmin": least, "s_tmax": most}
    assert float(exact("Euler", steps, **options).norm()) == pytest.approx(variance**0.5, rel=1e-9)


@pytest.mark.parametrize(("name", "bound"), [("Euler", 0.06), ("Heun", 0.002), ("DPM2", 0.003)])
def test_churned_noise_is_taken_away_with_more_steps(name: str, bound: float) -> None:
    """At 400 steps: 5.7 % less deviation for Euler, whose error is of first order, and 0.02 and 0.28 %."""
    assert abs(error(name, 400, s_churn=100.0)) < bound < abs(error(name, 25, s_churn=100.0))


@pytest.mark.parametrize("name", NOISY)
def test_without_eta_no_noise_comes_back(name: str) -> None:
    """Every value ends where the exact solution has it; 5 % is four times what 300 steps of Euler miss."""
    assert torch.allclose(run(name, eta=0.0), start_values() * DEVIATION, atol=0.05)


@pytest.mark.parametrize("name", NOISY)
def test_more_noise_makes_more_contrast(name: str) -> None:
    assert float(run(name, s_noise=1.1).std()) > float(run(name).std()) * 1.02


@pytest.mark.parametrize("name", ["Euler", "Heun", "DPM2"])
def test_churned_noise_is_taken_away_again(name: str) -> None:
    """Ten thousand values drawn: their deviation is that of the exact one but for 4 in 141 (the error of a
    standard deviation of n values is one in the root of 2 n)."""
    made = run(name, s_churn=100.0)
    wanted = float(exact(name, 300, s_churn=100.0).norm())
    assert float(made.std()) == pytest.approx(wanted, rel=4 / 141)
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
