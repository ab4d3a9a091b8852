"""Bells to the GPU workers: they may be lost, so ringing never fails and never waits long."""

import logging
import queue
import threading

from celery import Celery
from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from services.common.queues import BELLS

log = logging.getLogger(__name__)


class Bells:
    """Tells every GPU worker at once; a background thread speaks to Redis, the request does not wait."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._waiting: queue.SimpleQueue[tuple[str, dict[str, str]]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def ring(self, endpoint: str) -> None:
        """A job waits at this endpoint."""
        self._send("gpu_worker.ring", endpoint=endpoint)

    def cancel(self, job_id: str) -> None:
        """Stop this job wherever it runs."""
        self._send("gpu_worker.cancel", job_id=job_id)

    def _send(self, task: str, **arguments: str) -> None:
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._deliver, name="bells", daemon=True)
                self._thread.start()
        self._waiting.put((task, arguments))

    def _deliver(self) -> None:
        while True:
            task, arguments = self._waiting.get()
            try:
                # Undeclared, kombu takes it for a direct exchange; Redis delivers only between equal keys.
                self._app.send_task(
                    task,
                    kwargs=arguments,
                    exchange=BELLS,
                    routing_key=BELLS.name,
                    declare=[BELLS],
                    retry=False,
                    ignore_result=True,
                )
            except (RedisError, KombuError, OSError) as error:
                log.warning("a bell was lost", extra={"task": task, "failure": type(error).__name__})
