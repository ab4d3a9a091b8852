"""Hires fix on the house checkpoint: the size grows, the scene stays, the second pass is its own."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from gpu_worker import infotext
from gpu_worker.errors import RequestFault
from gpu_worker.esrgan import CompactNet
from gpu_worker.infotext_request import request_from
from gpu_worker.pipelines import ModelMemory
from gpu_worker.tasks import TaskResult
from tests.gpu_worker import house
from tests.gpu_worker.contexts import Steps, context
from tests.gpu_worker.test_upscaling import repeat_pixels

PROMPT = "a red circle on a white background"


def hires(memory: ModelMemory, models: Any = None, **parameters: Any) -> TaskResult:
    body = {"prompt": PROMPT, "enable_hr": True, "denoising_strength": 0.3, "hr_second_pass_steps": 3}
    return house.run(memory, "txt2img", models, **(body | parameters))


@pytest.fixture(scope="module")
def small(memory: ModelMemory) -> Image.Image:
    return house.run(memory, "txt2img", prompt=PROMPT).pictures[0].image


@pytest.mark.parametrize(
    "upscaler",
    [
        *("Latent", "Latent (antialiased)", "Latent (bicubic)", "Latent (bicubic antialiased)"),
        *("Latent (nearest)", "Latent (nearest-exact)", "Lanczos", "Nearest"),
    ],
)
def test_the_size_doubles_and_the_scene_stays(memory: ModelMemory, small: Image.Image, upscaler: str) -> None:
    picture = hires(memory, hr_upscaler=upscaler).pictures[0]
    assert picture.image.size == (128, 128)
    shown, before = house.read(picture.image), house.read(small)
    assert (shown.foreground, shown.background) == (before.foreground, before.background) == ("red", "white")
    halved = picture.image.resize((64, 64), Image.Resampling.BOX)
    assert np.abs(house.pixels(halved) - house.pixels(small)).mean() < 35
    assert infotext.parse(picture.infotext)["Hires upscaler"] == upscaler


def test_a_network_enlarges_the_picture_between_the_passes(
    memory: ModelMemory, small: Image.Image, tmp_path: Path
) -> None:
    with torch.no_grad():
        save_file(repeat_pixels(CompactNet(8, 2, 2)).state_dict(), tmp_path / "twice.safetensors")
    models = {"Upscaler": [tmp_path / "twice.safetensors"]}
    made = hires(memory, models, hr_upscaler="twice", denoising_strength=0).pictures[0].image
    wanted = small.resize((128, 128), Image.Resampling.NEAREST)
    # Without a second pass only the VAE's round trip lies between.
    assert np.abs(house.pixels(made) - house.pixels(wanted)).mean() < 8


@pytest.mark.parametrize(
    ("body", "size", "text"),
    [
        ({"hr_scale": 1.5}, (96, 96), "Hires upscale: 1.5"),
        ({"hr_resize_x": 96, "hr_resize_y": 128}, (96, 128), "Hires resize: 96x128"),
        ({"hr_resize_x": 128}, (128, 128), "Hires resize: 128x0"),
        ({"hr_scale": 1.7}, (104, 104), "Hires upscale: 1.7"),
        ({"firstphase_width": 80, "width": 160, "height": 128}, (160, 128), "Size: 80x64, "),
    ],
)
def test_sizes_are_the_webuis(
    memory: ModelMemory, body: dict[str, Any], size: tuple[int, int], text: str
) -> None:
    picture = hires(memory, hr_second_pass_steps=1, steps=2, **body).pictures[0]
    assert picture.image.size == size
    assert text in picture.infotext


def test_the_second_pass_has_its_own_prompt_sampler_and_scale(memory: ModelMemory) -> None:
    picture = hires(
        memory,
        hr_prompt="a blue square on a yellow background",
        hr_sampler_name="DDIM",
        hr_cfg=4,
        hr_negative_prompt="red",
        denoising_strength=0.9,
        hr_second_pass_steps=6,
    ).pictures[0]
    assert house.read(picture.image).background == "yellow"
    fields = infotext.parse(picture.infotext)
    assert fields["Hires sampler"] == "DDIM"
    assert fields["Hires prompt"] == "a blue square on a yellow background"
    assert (fields["Hires CFG scale"], fields["Hires steps"], fields["Hires negative prompt"]) == (
        "4",
        "6",
        "red",
    )


def test_progress_counts_both_passes(memory: ModelMemory) -> None:
    body = house.SMALL | {"prompt": PROMPT, "enable_hr": True, "steps": 4, "hr_second_pass_steps": 3}
    work = context(memory.device, "txt2img", body, {"Stable-diffusion": [house.CHECKPOINT]}, memory)
    house.find_task("txt2img", house.TASKS)(work)
    assert isinstance(work.progress, Steps)
    assert work.progress.announced == [(1, 7)]
    assert [step for step, _, _ in work.progress.steps] == [1, 2, 3, 4, 5, 6, 7]


def test_an_infotext_sent_back_makes_the_same_picture(memory: ModelMemory) -> None:
    first = hires(memory, hr_upscaler="Lanczos").pictures[0]
    body = request_from(first.infotext)
    again = house.run(memory, "txt2img", **body).pictures[0]
    assert again.infotext == first.infotext
    assert np.array_equal(house.pixels(again.image), house.pixels(first.image))


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"hr_upscaler": "Magic"}, "hr_upscaler 'Magic' is not known"),
        ({"hr_scale": 9}, "hr_scale must be a number from 1 to 8"),
        ({"hr_scale": 8, "width": 1024, "height": 1024}, "would make a picture of 8192x8192"),
        ({"hr_sampler_name": "Magic"}, "Magic"),
        ({"hr_checkpoint_name": "other"}, "hr_checkpoint_name is not supported"),
    ],
)
def test_a_wrong_body_is_refused(memory: ModelMemory, body: dict[str, Any], says: str) -> None:
    with pytest.raises(RequestFault, match=says):
        hires(memory, **body)
