"""The WebUI's schedules by their names."""

import numpy as np
import pytest
from diffusers import EulerDiscreteScheduler

from gpu_worker.schedules import SCHEDULE_NAMES, NoiseTable, levels

TRAINED = EulerDiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
TABLE = NoiseTable.from_alphas(TRAINED.alphas_cumprod.double().numpy())


@pytest.mark.parametrize("name", SCHEDULE_NAMES)
@pytest.mark.parametrize("steps", [2, 7, 30, 150])
def test_levels_fall_from_the_most_noise_to_none(name: str, steps: int) -> None:
    found = levels(name, steps, TABLE)
    assert len(found) == steps + 1
    assert found[-1] == 0
    assert (np.diff(found) < 0).all()
    assert found[0] > (1 if name == "DDIM" else 14)
    assert found[0] <= TABLE.most + 0.01


@pytest.mark.parametrize("name", SCHEDULE_NAMES)
def test_one_step_is_a_schedule_too(name: str) -> None:
    assert len(levels(name, 1, TABLE)) == 2


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("Karras", "use_karras_sigmas"),
        ("Exponential", "use_exponential_sigmas"),
        ("Beta", "use_beta_sigmas"),
        ("Uniform", ""),
    ],
)
def test_levels_are_those_of_diffusers(name: str, option: str) -> None:
    other = EulerDiscreteScheduler.from_config(TRAINED.config, **({option: True} if option else {}))
    other.set_timesteps(12)
    assert np.allclose(levels(name, 12, TABLE), other.sigmas.numpy(), rtol=2e-3, atol=1e-4)


def test_ten_aligned_steps_are_the_published_ones_of_each_family() -> None:
    assert levels("Align Your Steps", 11, TABLE)[3] == pytest.approx(2.697)
    assert levels("Align Your Steps", 11, NoiseTable(TABLE.sigmas, is_xl=True))[3] == pytest.approx(2.181)


def test_times_and_levels_are_each_others_reverse() -> None:
    times = np.array([0.0, 12.5, 998.9])
    assert np.allclose(TABLE.time_of(TABLE.sigma_at(times)), times)
