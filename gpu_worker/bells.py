"""Hears the bells: a Celery worker in a thread that consumes the broadcast queue and wakes the loop."""

import logging
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from celery import Celery
from celery.app.trace import setup_worker_optimizations
from celery.worker import state as celery_state
from kombu import Connection, Exchange
from kombu.common import Broadcast

log = logging.getLogger(__name__)

EXCHANGE = "bells"
ROUTING_KEY = "bells"
RING_TASK = "gpu_worker.ring"
CANCEL_TASK = "gpu_worker.cancel"
RESTART_SECONDS = 1.0
RETRY_SECONDS = 1
STOP_SECONDS = 1.5


class _PatientCelery(Celery):
    """Tries Redis again every second; Celery's own pauses grow to half a minute."""

    def connection_for_read(self, url: str | None = None, **options: Any) -> Connection:
        connection = super().connection_for_read(url, **options)
        connection.ensure_connection = partial(
            connection.ensure_connection,
            interval_start=RETRY_SECONDS,
            interval_step=0,
            interval_max=RETRY_SECONDS,
        )
        return connection


def make_app(redis_url: str, ring: Callable[[str], None], cancel: Callable[[str], None]) -> Celery:
    """The Celery app of this worker; every bell is acknowledged at once and may be lost."""
    app = _PatientCelery("gpu_worker", broker=redis_url, set_as_current=False)
    app.conf.update(
        # Celery gives a queue without routing key its own; Redis delivers only between equal keys.
        task_queues=[
            Broadcast(
                name=EXCHANGE,
                exchange=Exchange(EXCHANGE, type="fanout", durable=False),
                routing_key=ROUTING_KEY,
            )
        ],
        task_ignore_result=True,
        task_acks_late=False,
        task_serializer="json",
        accept_content=["json"],
        broker_connection_retry=True,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={"socket_connect_timeout": 3, "health_check_interval": 5},
        worker_hijack_root_logger=False,
        worker_enable_remote_control=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
    )

    @app.task(name=RING_TASK, ignore_result=True, shared=False, lazy=False)
    def _ring(endpoint: str = "", **_later: Any) -> None:
        ring(str(endpoint))

    @app.task(name=CANCEL_TASK, ignore_result=True, shared=False, lazy=False)
    def _cancel(job_id: str = "", **_later: Any) -> None:
        cancel(str(job_id))

    return app


class Bells:
    """Keeps a Celery worker running beside the loop, whatever becomes of Redis."""

    def __init__(self, redis_url: str, ring: Callable[[str], None], cancel: Callable[[str], None]) -> None:
        self._app = make_app(redis_url, ring, cancel)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="bells", daemon=True)

    def start(self) -> None:
        """Begins to listen; Redis need not be there yet."""
        self._thread.start()

    def stop(self) -> None:
        """Stops listening; what Redis still holds back is not waited for."""
        self._stopped.set()
        # Celery's flag is one for the process; 0 is an exit code.
        celery_state.should_stop = 0
        if self._thread.is_alive():
            self._thread.join(timeout=STOP_SECONDS)
        celery_state.should_stop = None

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self._listen()
            except (Exception, SystemExit):
                log.warning("the bells fell silent, listening again", exc_info=True)
            self._stopped.wait(RESTART_SECONDS)

    def _listen(self) -> None:
        # What `celery worker` does before it starts: without it, tasks are looked up in another app.
        setup_worker_optimizations(self._app)
        # The solo pool runs a bell in this thread, within microseconds of its arrival.
        worker = self._app.WorkController(
            app=self._app,
            pool="solo",
            concurrency=1,
            hostname="bells@%h",
            without_gossip=True,
            without_mingle=True,
            without_heartbeat=True,
            loglevel=logging.WARNING,
        )
        worker.start()
