"""Pictures by the house checkpoint and what they show: effects are seen, not only code run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gpu_worker.pipelines import ModelMemory
from gpu_worker.tasks import TaskResult, find_task
from gpu_worker.worker import TASKS
from house.judge import Reading, read_picture
from tests.gpu_worker.contexts import context

HOUSE = Path(__file__).parents[2] / "house"
CHECKPOINT = HOUSE / "shapes-v1.safetensors"
SMALL = {"steps": 12, "width": 64, "height": 64, "seed": 7, "sampler_name": "Euler", "cfg_scale": 5}


def run(
    memory: ModelMemory, task: str, models: Mapping[str, list[Path]] | None = None, **parameters: Any
) -> TaskResult:
    """A job on the house checkpoint."""
    files = {"Stable-diffusion": [CHECKPOINT], **(models or {})}
    work = context(memory.device, task, SMALL | parameters, files, memory)
    return find_task(task, TASKS)(work)


def pixels(picture: Image.Image) -> NDArray[np.int64]:
    return np.asarray(picture.convert("RGB"), dtype=np.int64)


def read(picture: Image.Image) -> Reading:
    """What the picture shows, in whatever size."""
    small = picture if picture.size == (64, 64) else picture.resize((64, 64), Image.Resampling.BOX)
    return read_picture(np.asarray(small.convert("RGB"), dtype=np.uint8))
