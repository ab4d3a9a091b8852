"""Samplers by the WebUI's names."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpu_worker.device import Device
from gpu_worker.errors import RequestFault
from gpu_worker.generation import generate
from gpu_worker.loading import load_checkpoint
from gpu_worker.pipelines import LoadedCheckpoint, ModelMemory
from gpu_worker.plan import ImageRequest, Plan
from gpu_worker.samplers import SAMPLERS, choose_sampling, make_scheduler
from gpu_worker.schedules import SCHEDULE_NAMES
from gpu_worker.single_file import SCHEDULER_CONFIG
from tests.gpu_worker import house

WORDS = "a red circle on a white background"

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
    with pytest.raises(RequestFault, match=r"'Other' is not known; this worker has DPM\+\+ 2M, .*LCM"):
        choose_sampling("Other", None)


def test_a_sampler_that_is_not_done_says_why_and_what_is_near_it() -> None:
    with pytest.raises(RequestFault, match=r"'DPM adaptive' is not done here: .* DPM\+\+ 2M is"):
        choose_sampling("DPM adaptive", None)


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_house_checkpoint_obeys_with_every_sampler(memory: ModelMemory, name: str) -> None:
    steps = 8 if name == "LCM" else 24
    made = house.run(memory, "txt2img", prompt=WORDS, sampler_name=name, steps=steps, seed=3, cfg_scale=3)
    reading = house.read(made.pictures[0].image)
    assert (reading.shape, reading.background) == ("circle", "white")


@pytest.mark.parametrize("name", SCHEDULE_NAMES)
def test_every_schedule_makes_the_picture(memory: ModelMemory, name: str) -> None:
    # Of Beta's twelve levels eight lie above 4: with so few steps it gets nothing but the background right.
    body = {"prompt": WORDS, "sampler_name": "DPM++ 2M", "seed": 3, "steps": 30 if name == "Beta" else 12}
    made = house.run(memory, "txt2img", scheduler=name, **body)
    reading = house.read(made.pictures[0].image)
    assert (reading.foreground, reading.shape, reading.background) == ("red", "circle", "white")
    assert f"Schedule type: {name}" in made.info["infotexts"][0]


@pytest.mark.parametrize("name", ["Euler a", "DPM2 a", "DPM++ 2S a", "DPM++ SDE", "DPM++ 3M SDE"])
def test_noise_on_the_way_belongs_to_each_picture(memory: ModelMemory, name: str) -> None:
    options = {"prompt": WORDS, "sampler_name": name, "steps": 6}
    both = house.run(memory, "txt2img", batch_size=2, **options)
    alone = house.run(memory, "txt2img", **options | {"seed": 8})
    assert np.abs(house.pixels(both.pictures[1].image) - house.pixels(alone.pictures[0].image)).max() <= 1


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("Euler a", {"eta": 0.5}, "Eta: 0.5"),
        ("DDIM", {"eta": 1.0}, "Eta DDIM: 1"),
        ("Euler a", {"override_settings": {"eta_ancestral": 0.4}}, "Eta: 0.4"),
        ("Euler a", {"override_settings": {"eta_noise_seed_delta": 31337}}, "ENSD: 31337"),
        ("Euler", {"s_churn": 20, "s_tmax": float("inf")}, "Sigma churn: 20"),
        ("DPM++ SDE", {"s_noise": 1.02}, "Sigma noise: 1.02"),
        ("Euler", {"s_min_uncond": 5.0}, "NGMS: 5"),
        (
            "Euler",
            {"s_min_uncond": 5.0, "override_settings": {"s_min_uncond_all": True}},
            "NGMS all steps: True",
        ),
        ("Euler", {"override_settings": {"skip_early_cond": 0.3}}, "Skip Early CFG: 0.3"),
    ],
)
def test_options_change_the_picture_and_are_told(
    memory: ModelMemory, name: str, options: dict[str, Any], text: str
) -> None:
    plain = house.run(memory, "txt2img", prompt=WORDS, sampler_name=name)
    changed = house.run(memory, "txt2img", prompt=WORDS, sampler_name=name, **options)
    assert np.abs(house.pixels(plain.pictures[0].image) - house.pixels(changed.pictures[0].image)).max() > 0
    assert text in changed.info["infotexts"][0]
    assert changed.info["unsupported"] == []


def test_few_steps_of_a_turbo_model_need_no_negative_prompt(memory: ModelMemory) -> None:
    """Without guidance the negative prompt has no share, whatever it says."""
    body = {"prompt": WORDS, "scheduler": "SGM Uniform", "steps": 4}
    alone, against = (
        house.run(memory, "txt2img", **body, negative_prompt=words, cfg_scale=1).pictures[0].image
        for words in ("", "red, circle")
    )
    assert alone.tobytes() == against.tobytes()
    assert house.read(alone).background == "white"


def test_an_unknown_schedule_is_refused_with_the_known_ones() -> None:
    with pytest.raises(RequestFault, match="'Other' is not known; this worker has Automatic"):
        choose_sampling("Euler", "Other")


def test_a_pair_that_does_not_exist_is_refused() -> None:
    with pytest.raises(RequestFault, match="'Karras' does not go with sampler_name 'DDIM'"):
        choose_sampling("DDIM", "Karras")


def test_schedulers_keep_the_checkpoints_noise_schedule() -> None:
    config = make_scheduler(choose_sampling("DPM++ 2M", "Karras"), BASE).config
    assert (config["beta_end"], config["prediction_type"]) == (0.012, "v_prediction")
    assert config["schedule"] == "Karras"
