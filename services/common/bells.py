"""Bells to the GPU workers: they may be lost, so ringing never fails and never waits long."""

import logging
import queue
import threading
from typing import Any

from celery import Celery
from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from services.common.queues import BELLS

log = logging.getLogger(__name__)

# Undeclared, kombu takes it for a direct exchange; Redis delivers only between equal keys.
TO_WORKERS: dict[str, Any] = {"exchange": BELLS, "routing_key": BELLS.name, "declare": [BELLS]}
# Whoever looks every few seconds anyway need not hear of it later.
TO_QUEUE: dict[str, Any] = {"expires": 5}


class Bells:
    """Tells every GPU worker at once; a background thread speaks to Redis, the request does not wait."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._waiting: queue.SimpleQueue[tuple[str, dict[str, Any], dict[str, str]]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def ring(self, endpoint: str) -> None:
        """A job waits at this endpoint."""
        self._send("gpu_worker.ring", endpoint=endpoint)

    def cancel(self, job_id: str) -> None:
        """Stop this job wherever it runs."""
        self._send("gpu_worker.cancel", job_id=job_id)

    def submit(self, endpoint: str) -> None:
        """A job waits at this SageMaker endpoint: inference's own background work hands it over."""
        self._send("inference.submit_to_sagemaker", queue="inference", endpoint=endpoint)

    def _send(self, task: str, *, queue: str | None = None, **arguments: str) -> None:
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._deliver, name="bells", daemon=True)
                self._thread.start()
        self._waiting.put((task, TO_QUEUE | {"queue": queue} if queue else TO_WORKERS, arguments))

    def _deliver(self) -> None:
        while True:
            task, where, arguments = self._waiting.get()
            try:
                self._app.send_task(task, kwargs=arguments, retry=False, ignore_result=True, **where)
            except (RedisError, KombuError, OSError) as error:
                log.warning("a bell was lost", extra={"task": task, "failure": type(error).__name__})
