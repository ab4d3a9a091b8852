"""Previews: what is drawn, who gets them, and who does not."""

import base64
import io
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from gpu_worker.latents import encode
from gpu_worker.loading import load_checkpoint
from gpu_worker.pipelines import ModelMemory
from gpu_worker.previews import MOST_LATENTS, draw
from gpu_worker.safety import SafetyFilter
from gpu_worker.tasks import find_task
from house import shapes
from tests.gpu_worker import house
from tests.gpu_worker.conftest import StartWorker
from tests.gpu_worker.contexts import context
from tests.gpu_worker.platform import Platform
from tests.gpu_worker.test_safety import redness, safety

STAR = Image.fromarray(shapes.paint(shapes.draw_mask("star", 32, 32, 20), "red", "white"))


@dataclass
class Shown:
    """Takes every preview."""

    pictures: list[tuple[bytes, int, int]] = field(default_factory=list)

    def preview_due(self) -> bool:
        return True

    def show(self, jpeg: bytes, step: int, image: int) -> None:
        self.pictures.append((jpeg, step, image))


def opened(jpeg: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(jpeg))
    assert picture.format == "JPEG"
    return picture


def made(memory: ModelMemory, found: SafetyFilter | None = None, **body: Any) -> Shown:
    shown = Shown()
    files = {"Stable-diffusion": [house.CHECKPOINT]}
    work = context(memory.device, "txt2img", house.SMALL | body, files, memory)
    find_task("txt2img", house.TASKS)(replace(work, previews=shown, safety=found))
    return shown


def test_a_preview_shows_what_the_latents_say_and_is_small(memory: ModelMemory) -> None:
    with torch.inference_mode():
        vae = load_checkpoint(house.CHECKPOINT, "house", memory.device)[0].vae
        drawn = opened(draw(vae, encode(vae, [STAR])[0]))
        large = opened(draw(vae, torch.zeros(4, 4 * MOST_LATENTS, 2 * MOST_LATENTS)))
    assert house.read(drawn).foreground == "red"
    assert large.size == (8 * MOST_LATENTS // 2, 8 * MOST_LATENTS)


def test_the_last_preview_is_nearly_the_picture(memory: ModelMemory) -> None:
    shown = made(memory, prompt="a red circle on a white background")
    assert [step for _, step, _ in shown.pictures] == list(range(1, 13))
    reading = house.read(opened(shown.pictures[-1][0]))
    assert (reading.foreground, reading.background) == ("red", "white")


def test_each_batch_shows_its_first_picture(memory: ModelMemory) -> None:
    shown = made(memory, prompt="a", steps=2, batch_size=2, n_iter=2)
    assert [image for _, _, image in shown.pictures] == [0, 0, 2, 2]


def test_what_a_filter_has_not_passed_is_not_shown(memory: ModelMemory, tmp_path: Path) -> None:
    found = safety(redness(tmp_path / "m.onnx"), "black")
    assert made(memory, found, prompt="a", steps=2).pictures == []


def test_previews_reach_the_service_when_the_job_wants_them(
    platform: Platform, models: Path, start_worker: StartWorker
) -> None:
    model = platform.put_file(models / "sd1.safetensors")
    body = {"prompt": "a", "steps": 30, "width": 64, "height": 64}
    with start_worker():
        platform.submit("job1", [model], body, preview=True)
        platform.submit("job2", [model], body)
        platform.end_of("job1", 60.0)
        platform.end_of("job2", 60.0)
        platform.wait_for(lambda: platform.previews)
    assert {preview["id"] for preview in platform.previews} == {"job1"}
    first = platform.previews[0]
    assert 1 <= first["step"] <= 30
    assert np.asarray(opened(base64.b64decode(first["picture"]))).shape == (64, 64, 3)
