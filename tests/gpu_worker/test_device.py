"""Where and in what precision a worker computes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gpu_worker.device import Device, choose_device
from gpu_worker.pipelines import ModelMemory
from tests.gpu_worker import house


def test_the_settings_are_followed(device: Device) -> None:
    chosen = choose_device("bf16", 1_000_000, True)
    assert (chosen.dtype, chosen.vae_dtype) == (torch.bfloat16, torch.float32)
    assert (chosen.batch_pixels, chosen.is_compiled) == (1_000_000, True)
    usual = choose_device()
    assert usual.dtype is (torch.float16 if usual.is_cuda else torch.float32)


def test_a_coarser_precision_shows_the_same_scene(device: Device, memory: ModelMemory) -> None:
    coarse = ModelMemory(replace(device, dtype=torch.bfloat16), None)
    words = "a red circle on a white background"
    exact, rounded = (house.run(one, "txt2img", prompt=words).pictures[0].image for one in (memory, coarse))
    reading = house.read(rounded)
    assert (reading.foreground, reading.shape, reading.background) == ("red", "circle", "white")
    assert 0 < np.abs(house.pixels(exact) - house.pixels(rounded)).mean() < 8


@pytest.mark.slow
def test_compiled_models_make_the_same_pictures(device: Device, memory: ModelMemory, tmp_path: Path) -> None:
    compiled = ModelMemory(replace(device, is_compiled=True), None)
    body = {"prompt": "a red circle on a white background", "steps": 4}
    plain, other = (house.run(one, "txt2img", **body).pictures[0].image for one in (memory, compiled))
    assert np.abs(house.pixels(plain) - house.pixels(other)).max() <= 1
    again = house.run(compiled, "txt2img", **body, batch_size=3).pictures[0].image
    assert np.abs(house.pixels(plain) - house.pixels(again)).max() <= 1
