"""Exclusive work on one checkpoint: a lease in MongoDB that outlives no process for long."""

import contextlib
import logging
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

from pymongo.errors import PyMongoError

from services.checkpoints.checkpoint import INITIAL, Checkpoint
from services.checkpoints.errors import BusyCheckpoint
from services.checkpoints.repository import Repository

log = logging.getLogger(__name__)

LOOK_EVERY = 0.1  # seconds
LEAST_WAIT = 5.0  # seconds; a busy machine takes longer than a short lease


@dataclass(frozen=True)
class Held:
    """A checkpoint on which nobody else works now."""

    checkpoint: Checkpoint
    token: str


@contextlib.contextmanager
def exclusive(
    repository: Repository, checkpoint_id: str, seconds: float, status: str = INITIAL, wait: bool = True
) -> Iterator[Held | None]:
    """Hold the checkpoint's lease; renewed until the block ends, free `seconds` after the process dies.

    Gives None when the checkpoint is not, or no longer, in that state. While somebody else holds the lease,
    this waits longer than a dead process would keep it, then raises BusyCheckpoint; unless it is not
    to `wait`, then it gives None.
    """
    token = uuid.uuid4().hex
    checkpoint = _take(repository, checkpoint_id, status, token, seconds, wait)
    if checkpoint is None:
        yield None
        return
    stop = threading.Event()
    renewing = threading.Thread(
        target=_renew, args=(repository, checkpoint_id, token, seconds, stop), name="lease", daemon=True
    )
    renewing.start()
    try:
        yield Held(checkpoint, token)
    finally:
        stop.set()
        renewing.join()
        repository.release_lease(checkpoint_id, token)


def _take(
    repository: Repository, checkpoint_id: str, status: str, token: str, seconds: float, wait: bool
) -> Checkpoint | None:
    deadline = time.monotonic() + max(seconds * 1.2, LEAST_WAIT)
    while True:
        taken = repository.take_lease(checkpoint_id, status, token, seconds)
        if taken is not None:
            return taken
        current = repository.get(checkpoint_id)
        if current is None or current.status != status or not wait:
            return None
        if time.monotonic() >= deadline:
            raise BusyCheckpoint(checkpoint_id)
        time.sleep(LOOK_EVERY)


def _renew(
    repository: Repository, checkpoint_id: str, token: str, seconds: float, stop: threading.Event
) -> None:
    while not stop.wait(seconds / 3):
        try:
            repository.renew_lease(checkpoint_id, token, seconds)
        except PyMongoError as error:  # the next one may get through; if not, the work ends as Cancelled
            log.warning("a lease was not renewed", extra={"failure": type(error).__name__})
