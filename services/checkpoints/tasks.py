"""The background work of checkpoints: `celery -A services.checkpoints.tasks worker -Q checkpoints`."""

import functools
import logging
from datetime import timedelta
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from celery import Task
from kombu.exceptions import KombuError
from pymongo.errors import PyMongoError
from redis.exceptions import RedisError

from services.checkpoints.checkpoint import IMPORTING, VERIFYING
from services.checkpoints.config import Config
from services.checkpoints.sealing import unseal
from services.checkpoints.wiring import Background, Parts, connect
from services.common.queues import PERIODIC, make_celery
from services.common.times import now

log = logging.getLogger(__name__)

app = make_celery("checkpoints", "checkpoints")

GO_ON_SECONDS = PERIODIC["checkpoints.go_on"][1]
LONG = 12 * 3600  # seconds; who works longer on one checkpoint is stopped, the sweep has it tried again


@functools.cache
def _parts() -> Parts:
    return connect(Config.from_env(), BACKGROUND)


def _ask(task: "Task[Any, Any]", checkpoint_id: str, *more: str, expires: float | None = None) -> None:
    """Send a task; a message that is lost is made good by the sweep."""
    try:
        task.apply_async((checkpoint_id, *more), retry=False, expires=expires)
    except (RedisError, KombuError, OSError) as error:
        log.warning("a message was lost", extra={"task": task.name, "failure": type(error).__name__})


@app.task(name="checkpoints.verify", acks_late=True, soft_time_limit=LONG)
def verify(checkpoint_id: str) -> None:
    """Compare the files with the sha256 that the client promised, and convert pickles."""
    _parts().uploads.verify(checkpoint_id)


@app.task(name="checkpoints.move", acks_late=True, soft_time_limit=LONG)
def move(checkpoint_id: str) -> None:
    """Copy the files to the keys of their new name and type."""
    _parts().moves.run(checkpoint_id)


@app.task(
    name="checkpoints.fetch",
    acks_late=True,
    soft_time_limit=LONG,
    autoretry_for=(BotoCoreError, ClientError, PyMongoError),
    max_retries=10,
    retry_backoff=2,
    retry_backoff_max=60,
)
def fetch(checkpoint_id: str, sealed_token: str = "") -> None:
    """Import the files from their URLs, with a token for their hosts if the user gave one."""
    parts = _parts()
    token = unseal(sealed_token, parts.config.internal.service_secret) if sealed_token else None
    parts.imports.run(checkpoint_id, token)


@app.task(name="checkpoints.abort_stalled_uploads", acks_late=True, soft_time_limit=600)
def abort_stalled_uploads() -> None:
    """Free what nobody finishes, and what is no longer needed."""
    parts = _parts()
    parts.deletion.sweep(now() - timedelta(seconds=parts.config.stalled_seconds))
    parts.deletion.empty_trash(now() - timedelta(seconds=parts.config.keep_moved_seconds))


@app.task(name="checkpoints.go_on", acks_late=True, soft_time_limit=60)
def go_on() -> None:
    """Have somebody go on with what a dead process left or a lost message asked for; end deletions."""
    repository, deletion = _parts().repository, _parts().deletion
    for task, waiting in (
        (verify, repository.unfinished_work([VERIFYING])),
        (fetch, repository.unfinished_work([IMPORTING])),
        (move, repository.planned_moves()),
    ):
        for checkpoint_id in waiting:
            _ask(task, checkpoint_id, expires=GO_ON_SECONDS)  # the next one asks again: they never pile up
    deletion.clear_leftovers()


BACKGROUND = Background(
    verify=functools.partial(_ask, verify),
    move=functools.partial(_ask, move),
    fetch=lambda checkpoint_id, sealed_token="": _ask(fetch, checkpoint_id, sealed_token),
)
