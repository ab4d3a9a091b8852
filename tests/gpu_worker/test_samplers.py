"""Samplers by the WebUI's names."""

from pathlib import Path

import pytest

from gpu_worker.device import Device
from gpu_worker.errors import RequestFault
from gpu_worker.generation import generate
from gpu_worker.loading import load_checkpoint
from gpu_worker.pipelines import LoadedCheckpoint
from gpu_worker.plan import ImageRequest, Plan
from gpu_worker.samplers import SAMPLERS, choose_sampling, make_scheduler
from gpu_worker.single_file import SCHEDULER_CONFIG

BASE = SCHEDULER_CONFIG | {"prediction_type": "v_prediction"}


@pytest.fixture(scope="module")
def checkpoint(models: Path, device: Device) -> LoadedCheckpoint:
    pipeline, description = load_checkpoint(models / "sd1.safetensors", "sd1", device)
    return LoadedCheckpoint("sd1", pipeline, description, "0" * 10)


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_makes_a_picture_in_the_steps_that_were_asked(
    checkpoint: LoadedCheckpoint, name: str
) -> None:
    steps: list[int] = []
    plan = Plan(choose_sampling(name, None), steps=4, cfg_scale=5, width=64, height=64)
    images = generate(
        checkpoint,
        checkpoint.pipeline.vae,
        [ImageRequest("a", "", 1)],
        plan,
        lambda step: steps.append(step.done),
    )
    assert images[0].size == (64, 64)
    assert steps == sorted(steps)
    assert steps[-1] == 4


@pytest.mark.parametrize(
    ("name", "schedule", "sampler", "used"),
    [
        ("DPM++ 2M Karras", None, "DPM++ 2M", "Karras"),
        ("DPM++ 2M Karras", "Exponential", "DPM++ 2M", "Exponential"),
        ("DPM++ 2M", "Automatic", "DPM++ 2M", "Karras"),
        ("dpm++ 2m sde", "", "DPM++ 2M SDE", "Exponential"),
        ("Euler", "sgm_uniform", "Euler", "SGM Uniform"),
        ("k_euler_a", None, "Euler a", "Uniform"),
    ],
)
def test_names_are_read_as_the_webui_does(name: str, schedule: str | None, sampler: str, used: str) -> None:
    chosen = choose_sampling(name, schedule)
    assert (chosen.sampler, chosen.schedule) == (sampler, used)


def test_an_unknown_sampler_is_refused_with_the_known_ones() -> None:
    with pytest.raises(RequestFault, match=r"'Restart' is not known; this worker has DPM\+\+ 2M, .*LCM"):
        choose_sampling("Restart", None)


def test_an_unknown_schedule_is_refused_with_the_known_ones() -> None:
    with pytest.raises(RequestFault, match="'Beta' is not known; this worker has Automatic, Uniform, Karras"):
        choose_sampling("Euler", "Beta")


def test_a_pair_that_does_not_exist_is_refused() -> None:
    with pytest.raises(RequestFault, match="'Karras' does not go with sampler_name 'DDIM'"):
        choose_sampling("DDIM", "Karras")


def test_schedulers_keep_the_checkpoints_noise_schedule() -> None:
    config = make_scheduler(choose_sampling("DPM++ 2M", "Karras"), BASE).config
    assert (config["beta_end"], config["prediction_type"]) == (0.012, "v_prediction")
    assert config["use_karras_sigmas"] is True
