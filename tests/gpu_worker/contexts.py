"""Runs tasks without a platform: a job whose models are files of the test."""

import base64
import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from gpu_worker.device import Device
from gpu_worker.files import StoredFile
from gpu_worker.jobs import Job, ModelFile
from gpu_worker.pipelines import ModelMemory
from gpu_worker.styles import NO_STYLES, Styles
from gpu_worker.tasks import TaskContext


@dataclass
class Steps:
    """Records what a task says of its progress."""

    announced: list[tuple[int, int]] = field(default_factory=list)
    steps: list[tuple[int, int, int]] = field(default_factory=list)

    def start(self, images: int, steps: int) -> None:
        self.announced.append((images, steps))

    def step(self, step: int, finished: int, batch: int) -> None:
        self.steps.append((step, finished, batch))

    def check(self) -> None: ...


def context(
    device: Device,
    task: str,
    parameters: Mapping[str, Any],
    models: Mapping[str, list[Path]] | None = None,
    memory: ModelMemory | None = None,
    seed: int = 1234,
    styles: Styles = NO_STYLES,
) -> TaskContext:
    """A task's context; `models` are files by their checkpoint type."""
    paths = {path.name: path for files in (models or {}).values() for path in files}
    files = tuple(
        ModelFile(kind, path.name, path.name, "", path.stat().st_size, str(path.stat().st_mtime_ns))
        for kind, entries in (models or {}).items()
        for path in entries
    )

    @contextmanager
    def open_file(model: ModelFile) -> Iterator[StoredFile]:
        yield StoredFile(paths[model.name], "0" * 64)

    return TaskContext(
        job=Job("job1", 1, 30.0, "endpoint", task, "", "", seed, files),
        parameters=parameters,
        memory=memory or ModelMemory(device, None),
        open_file=open_file,
        progress=Steps(),
        styles=styles,
    )


def encoded(picture: Image.Image) -> str:
    """A picture as requests carry it."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", pnginfo=None)
    return base64.b64encode(buffer.getvalue()).decode()
