"""The registry of what a worker can do: one function for each task type."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from PIL import Image

from gpu_worker.errors import RequestFault
from gpu_worker.files import StoredFile
from gpu_worker.jobs import Job, ModelFile
from gpu_worker.pipelines import ModelMemory
from gpu_worker.previews import Previews
from gpu_worker.safety import SafetyFilter
from gpu_worker.styles import NO_STYLES, Styles


class Progress(Protocol):
    """Where a task says how far it is; every call may raise `Dropped` to stop the work."""

    def start(self, images: int, steps: int) -> None:
        """Announces how many pictures of how many steps the task makes."""

    def step(self, step: int, finished: int, batch: int) -> None:
        """`step` is done for a `batch` of pictures that are made together after `finished` others."""

    def check(self) -> None:
        """Gives a chance to stop between steps."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A finished picture, its infotext, and what else its PNG says, by the names of the texts."""

    image: Image.Image
    infotext: str
    texts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TaskResult:
    """What a task made: pictures, and `info` in the WebUI's names."""

    pictures: list[Picture]
    info: dict[str, Any]


@dataclass(frozen=True, slots=True)
class TaskContext:
    """What a task may use: its job, the parsed parameter file, models and a way to report."""

    job: Job
    parameters: Mapping[str, Any]
    memory: ModelMemory
    open_file: Callable[[ModelFile], AbstractContextManager[StoredFile]]
    progress: Progress
    safety: SafetyFilter | None = None
    previews: Previews | None = None
    styles: Styles = NO_STYLES


Task = Callable[[TaskContext], TaskResult]


def find_task(task_type: str, registry: Mapping[str, Task]) -> Task:
    """The function of a task type; raises `RequestFault` that names those there are."""
    task = registry.get(task_type)
    if task is None:
        raise RequestFault(
            f"task_type {task_type[:40]!r} is not supported by this worker; it does {', '.join(registry)}"
        )
    return task
