"""The background work of checkpoints: `celery -A services.checkpoints.tasks worker -Q checkpoints`."""

import functools
import logging
from datetime import timedelta
from typing import Any

from celery import Task
from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from services.checkpoints.checkpoint import VERIFYING
from services.checkpoints.config import Config
from services.checkpoints.wiring import Background, Parts, connect
from services.common.queues import make_celery
from services.common.times import now

log = logging.getLogger(__name__)

app = make_celery("checkpoints", "checkpoints")

LONG = 12 * 3600  # seconds; who works longer on one checkpoint is stopped, the sweep has it tried again


@functools.cache
def _parts() -> Parts:
    return connect(Config.from_env(), BACKGROUND)


def _ask(task: "Task[Any, Any]", checkpoint_id: str) -> None:
    """Send a task; a message that is lost is made good by the sweep."""
    try:
        task.apply_async((checkpoint_id,), retry=False)
    except (RedisError, KombuError, OSError) as error:
        log.warning("a message was lost", extra={"task": task.name, "failure": type(error).__name__})


@app.task(name="checkpoints.verify", acks_late=True, soft_time_limit=LONG)
def verify(checkpoint_id: str) -> None:
    """Compare the files with the sha256 that the client promised."""
    _parts().uploads.verify(checkpoint_id)


@app.task(name="checkpoints.move", acks_late=True, soft_time_limit=LONG)
def move(checkpoint_id: str) -> None:
    """Copy the files to the keys of their new name and type."""
    _parts().moves.run(checkpoint_id)


@app.task(name="checkpoints.abort_stalled_uploads", acks_late=True, soft_time_limit=600)
def abort_stalled_uploads() -> None:
    """Free what nobody finishes, and go on with what a dead process left."""
    parts = _parts()
    parts.deletion.sweep(now() - timedelta(seconds=parts.config.stalled_seconds))
    parts.deletion.empty_trash(now() - timedelta(seconds=parts.config.keep_moved_seconds))
    for checkpoint_id in parts.repository.unfinished_work([VERIFYING]):
        _ask(verify, checkpoint_id)
    for checkpoint_id in parts.repository.planned_moves():
        _ask(move, checkpoint_id)


BACKGROUND = Background(verify=functools.partial(_ask, verify), move=functools.partial(_ask, move))
