"""Celery processes tell by the age of a file that they are connected: asking the broker costs seconds."""

import os
from pathlib import Path
from typing import Any

from celery.bootsteps import StartStopStep

VARIABLE = "ALIVE_FILE"
SECONDS = 5.0


def touch() -> None:
    """Say that this process does its work, where somebody wants to know."""
    path = os.environ.get(VARIABLE)
    if path:
        Path(path).touch()


class Alive(StartStopStep):
    """Touches the file while the worker's consumer is connected to the broker."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        self._timer: Any = None

    def start(self, parent: Any) -> None:
        touch()
        self._timer = parent.timer.call_repeatedly(SECONDS, touch)

    def stop(self, parent: Any) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
