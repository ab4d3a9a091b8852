"""Counts a Celery worker's tasks; its main process shows the metrics of all its children."""

import time
from typing import Any

from celery import Task
from celery.signals import celeryd_init, task_postrun, task_prerun, worker_ready, worker_shutdown

from services.common.metrics import TASK_SECONDS, TASKS
from services.common.metrics_server import drop_folder, forget_earlier_processes, serve_metrics

_began: dict[str, float] = {}


def count_tasks() -> None:
    """Count from now on; nothing of it happens outside of a Celery worker."""
    celeryd_init.connect(_begin, weak=False)
    worker_ready.connect(_show, weak=False)
    worker_shutdown.connect(_end, weak=False)
    task_prerun.connect(_note_beginning, weak=False)
    task_postrun.connect(_note_end, weak=False)


def _begin(**_: Any) -> None:
    forget_earlier_processes()


def _show(**_: Any) -> None:
    serve_metrics()


def _end(**_: Any) -> None:
    drop_folder()


def _note_beginning(task_id: str, **_: Any) -> None:
    _began[task_id] = time.perf_counter()


def _note_end(task_id: str, task: Task, state: str | None = None, **_: Any) -> None:
    began = _began.pop(task_id, None)
    TASKS.labels(task.name, state or "UNKNOWN").inc()
    if began is not None:
        TASK_SECONDS.labels(task.name).observe(time.perf_counter() - began)
