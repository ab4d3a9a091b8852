"""Holds the lease of long work: a thread reports progress, renews the lease and hears when to end."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from gpu_worker.errors import AttemptLost, Dropped, Released, ServiceRefused, ServiceUnreachable
from gpu_worker.training.work import Progress, Work, WorkClient

log = logging.getLogger(__name__)

REPORT_SECONDS = 1.0
RETRY_SECONDS = 0.5
MOST_LOSSES = 500  # in one report

Result = TypeVar("Result")


class WorkLease:
    """One attempt, as long as this process holds it; `check` raises `Dropped` once it does not."""

    def __init__(self, client: WorkClient, work: Work, must_release: Callable[[], bool]) -> None:
        self._client = client
        self._work = work
        self._must_release = must_release
        self._lock = threading.Lock()
        self._reporting = threading.Lock()
        self._progress = Progress()
        self._losses: list[tuple[int, float]] = []
        self._drop: Dropped | None = None
        self._stop_wanted = False
        self._deadline = time.monotonic() + work.lease_seconds
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="work-lease", daemon=True)
        self._thread.start()

    @property
    def stop_wanted(self) -> bool:
        """Whether a user wants the work to end with what it has."""
        return self._stop_wanted

    def note(self, **changes: Any) -> None:
        """Members of `Progress` that have changed."""
        with self._lock:
            self._progress = replace(self._progress, **changes)

    def note_loss(self, step: int, loss: float) -> None:
        """A point of the loss curve."""
        with self._lock:
            self._losses.append((step, round(loss, 6)))

    @property
    def must_release(self) -> bool:
        """Whether the worker stops."""
        return self._must_release()

    def check(self) -> None:
        """Raises `AttemptLost` or `Released` when the work is to be dropped."""
        self.check_held()
        if self._must_release():
            raise Released(f"work {self._work.id}")

    def check_held(self) -> None:
        """Raises `AttemptLost` when somebody else has the work."""
        if self._drop is not None:
            raise self._drop
        if time.monotonic() > self._deadline:
            raise AttemptLost("the lease has run out")

    def persist(self, call: Callable[[], Result]) -> Result:
        """Repeats a call until it succeeds or the lease is over; raises what the last try raised."""
        pause = RETRY_SECONDS / 4
        while True:
            try:
                return call()
            except ServiceUnreachable:
                if time.monotonic() + pause > self._deadline:
                    raise
            time.sleep(pause)
            pause = min(pause * 2, 2.0)

    def close(self) -> None:
        """Tells the last progress and ends the thread."""
        self._closed.set()
        self._thread.join(timeout=15)

    def _run(self) -> None:
        while not self._closed.is_set() and self._drop is None:
            self._report()
            self._closed.wait(REPORT_SECONDS)
        if self._drop is None:
            self._report()

    def tell(self) -> None:
        """Tell the progress now: the last one, before the end of the work."""
        if self._drop is None:
            self._report()

    def _report(self) -> None:
        with self._reporting:
            self._report_alone()

    def _report_alone(self) -> None:
        with self._lock:
            losses = self._losses[:MOST_LOSSES]
            progress = replace(self._progress, losses=tuple(losses))
        sent = time.monotonic()
        try:
            self._stop_wanted, lease_seconds = self._client.report(self._work, progress)
        except AttemptLost as error:
            self._drop = error
            return
        except (ServiceUnreachable, ServiceRefused) as error:
            log.warning("progress not taken", extra={"reason": str(error)})
            return
        with self._lock:
            del self._losses[: len(losses)]
        self._deadline = sent + lease_seconds
