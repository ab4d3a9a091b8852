"""Takes trainings and merges while a slot is free, each in a process of its own beside the image jobs."""

import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

from gpu_worker.config import WorkerConfig
from gpu_worker.errors import AttemptLost, ServiceRefused, ServiceUnreachable
from gpu_worker.training.work import Work, WorkClient

log = logging.getLogger(__name__)

STOP_SECONDS = 15.0
POLL_SECONDS = 0.2


class LongWork:
    """A thread that claims one piece of work at a time and waits for its process.

    A process of its own gives all memory back at its end and can be killed without the worker. `may_claim`
    says whether a slot is free and no image job runs.
    """

    def __init__(
        self,
        config: WorkerConfig,
        client: WorkClient,
        instance_type: str,
        may_claim: Callable[[], bool],
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._config = config
        self._client = client
        self._instance_type = instance_type
        self._may_claim = may_claim
        self._on_change = on_change
        self._stop = threading.Event()
        self._running: str | None = None
        self._thread = threading.Thread(target=self._run, name="long-work", daemon=True)

    @property
    def running(self) -> list[str]:
        """The id of the work that is being done."""
        return [self._running] if self._running else []

    def start(self) -> None:
        """Begins, unless there is no training service."""
        if self._config.training_url:
            self._thread.start()

    def stop(self) -> None:
        """Claims nothing more; running work saves its state and is given back."""
        self._stop.set()

    def join(self) -> None:
        """Waits until the process has ended."""
        if self._thread.is_alive():
            self._thread.join(STOP_SECONDS + 5)

    def _run(self) -> None:
        while not self._stop.is_set():
            document = self._claim() if self._may_claim() else None
            if document is None:
                self._stop.wait(self._config.claim_seconds)
                continue
            self._running = str(document["id"])
            self._on_change()
            try:
                self._do(document)
            except Exception:
                log.exception("the process of long work could not be run")
            finally:
                self._running = None
                self._on_change()

    def _claim(self) -> Mapping[str, Any] | None:
        try:
            return self._client.claim_work(self._instance_type)
        except (ServiceUnreachable, ServiceRefused) as error:
            log.warning("no long work could be claimed", extra={"reason": str(error)})
        except Exception:
            log.exception("the answer to a claim of long work was not understood")
        return None

    def _do(self, document: Mapping[str, Any]) -> None:
        log.info("long work claimed", extra={"work_id": document["id"], "attempt": document["attempt"]})
        command = [sys.executable, "-m", "gpu_worker", "long-work"]
        environment = dict(os.environ) | {"WORKER_ID": self._config.worker_id}
        process = subprocess.Popen(command, stdin=subprocess.PIPE, env=environment)
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(document).encode())
            process.stdin.close()
        except BrokenPipeError:
            log.warning("the process of long work ended at once")
        status = self._wait(process)
        log.info("long work ended", extra={"work_id": document["id"], "status": status})
        if status != 0:
            self._report_death(document, status)

    def _wait(self, process: "subprocess.Popen[bytes]") -> int:
        while not self._stop.is_set():
            try:
                return process.wait(POLL_SECONDS)
            except subprocess.TimeoutExpired:
                continue
        process.terminate()
        try:
            return process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def _report_death(self, document: Mapping[str, Any], status: int) -> None:
        """The process said nothing of its end: the lease need not run out first."""
        work = Work.from_json(document)
        reason = f"its process was ended by signal {-status}" if status < 0 else "its process ended early"
        try:
            if self._stop.is_set():  # it took too long to end: that is no fault of the work's
                self._client.release_work(work)
            else:
                self._client.fail_work(work, "machine", reason)
        except AttemptLost:
            log.info("the attempt was over already")
        except (ServiceUnreachable, ServiceRefused) as error:
            log.warning("a death was not reported", extra={"reason": str(error)})
