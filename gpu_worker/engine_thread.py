"""The one thread that loads the engine and computes one invocation after the other."""

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from enum import StrEnum
from typing import Any, Protocol

from gpu_worker.errors import JobFault, MachineFault, Passing
from gpu_worker.invocation import Invocation

log = logging.getLogger(__name__)

MOST_WAITING = 4
LONGEST_WAIT_SECONDS = 30.0


class State(StrEnum):
    """Whether invocations are taken."""

    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"


class Runner(Protocol):
    """What computes: `InvocationRunner`."""

    def run(self, invocation: Invocation) -> dict[str, Any]:
        """The answer; raises a `JobFault`."""


class EngineThread:
    """Loads what `load` gives in the background; a second invocation waits for the first.

    `load_failed` is called when there will be no engine.
    """

    def __init__(
        self,
        load: Callable[[], Runner],
        load_failed: Callable[[], None],
        wait_seconds: float = LONGEST_WAIT_SECONDS,
    ) -> None:
        self.state = State.LOADING
        self._wait_seconds = wait_seconds
        self._line = threading.BoundedSemaphore(1 + MOST_WAITING)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="engine")
        self._loaded: Future[Runner] = self._thread.submit(self._load, load, load_failed)

    def run(self, invocation: Invocation) -> dict[str, Any]:
        """The answer to an invocation; raises `RequestFault`, `Passing` or `MachineFault`."""
        if self.state is not State.READY:
            raise Passing(f"this instance takes no jobs now: it is {self.state}")
        if not self._line.acquire(blocking=False):
            raise Passing("this instance computes another job, and others wait")
        begun = threading.Event()
        try:
            future = self._thread.submit(self._run, invocation, begun)
            if not begun.wait(self._wait_seconds) and future.cancel():
                raise Passing(f"this instance computed another job for more than {self._wait_seconds:g} s")
            return future.result()
        finally:
            self._line.release()

    def _load(self, load: Callable[[], Runner], load_failed: Callable[[], None]) -> Runner:
        try:
            runner = load()
        except BaseException:
            self.state = State.FAILED
            log.critical("the engine could not be loaded", exc_info=True)
            load_failed()
            raise
        self.state = State.READY
        return runner

    def _run(self, invocation: Invocation, begun: threading.Event) -> dict[str, Any]:
        begun.set()
        if self.state is State.FAILED:
            raise MachineFault("this instance failed with the job before")
        try:
            return self._loaded.result().run(invocation)
        except JobFault as fault:
            log.warning(
                "invocation failed",
                extra={"job_id": invocation.job.id, "kind": fault.kind, "reason": str(fault)},
            )
            if isinstance(fault, MachineFault):
                self.state = State.FAILED
            raise
        except Exception:
            log.exception("invocation failed unexpectedly", extra={"job_id": invocation.job.id})
            raise Passing("the worker met an unexpected error; its log has the details") from None
