"""Tells the endpoints service every two seconds what this worker does, and hears what it is to serve."""

import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gpu_worker.client import ServiceClient
from gpu_worker.errors import ServiceRefused, ServiceUnreachable
from gpu_worker.jobs import Endpoint

log = logging.getLogger(__name__)

# Changes that follow one another closely (a job ends, the next begins) are told once.
SETTLE_SECONDS = 0.2

Describe = Callable[[], dict[str, Any]]


class Heartbeat:
    """A thread that sends `describe()` every `period` seconds and soon after `changed()`.

    `assigned` is called, in that thread, with the endpoints of every answer; `alive_file` is touched.
    """

    def __init__(
        self,
        client: ServiceClient,
        describe: Describe,
        assigned: Callable[[Sequence[Endpoint]], None],
        period: float,
        alive_file: Path | None = None,
    ) -> None:
        self._client = client
        self._describe = describe
        self._assigned = assigned
        self._period = period
        self._alive_file = alive_file
        self._poked = threading.Event()
        self._stopped = threading.Event()
        self._sent: dict[str, Any] = {}
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Begins; the first heartbeat is sent at once."""
        self._thread.start()

    def changed(self) -> None:
        """Says that the state or the loaded models may have changed; it is told at once if so."""
        self._poked.set()

    def stop(self) -> None:
        """Ends the thread after a last heartbeat."""
        self._stopped.set()
        self._poked.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)
        self._send(self._describe())

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._send(self._describe())
            self._wait()

    def _wait(self) -> None:
        """Waits a period, or less when what would be told differs from what was told last."""
        while self._poked.wait(self._period):
            self._poked.clear()
            if self._stopped.wait(SETTLE_SECONDS) or self._describe() != self._sent:
                return

    def _send(self, report: dict[str, Any]) -> None:
        try:
            endpoints = self._client.heartbeat(report)
        except (ServiceUnreachable, ServiceRefused) as error:
            log.warning("heartbeat not taken", extra={"reason": str(error)})
            return
        except Exception:
            log.exception("heartbeat answered with something else")
            return
        self._sent = report
        if self._alive_file is not None:
            self._alive_file.touch()
        self._assigned(endpoints)
