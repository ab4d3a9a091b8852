"""How gunicorn serves a service; size and address come from the environment."""

import os
import socket
from typing import Any

# Here, so that the workers to come share one folder of values.
from services.common.metrics_server import (
    COLLECTORS,
    drop_folder,
    forget_earlier_processes,
    serve_metrics,
)

bind = os.environ.get("LISTEN", "0.0.0.0:8000")
workers = int(os.environ.get("WEB_WORKERS", "1"))
threads = int(os.environ.get("WEB_THREADS", "16"))
worker_class = "services.common.worker.Worker"  # gthread, and answers from memory without a thread
# A Real-time job is waited for inside a request; longer than the gateway's limit.
timeout = 120
graceful_timeout = 30
keepalive = 75
accesslog = None  # the service logs its requests itself, as JSON
worker_tmp_dir = "/dev/shm" if os.path.isdir("/dev/shm") else None  # noqa: S108, PTH112 - a heartbeat file only
limit_request_line = 0  # nginx limits it, and answers in the envelope
limit_request_fields = 60
# The internal token names every role and permission of the caller.
limit_request_field_size = 32768


def on_starting(_server: Any) -> None:
    """Before the first worker."""
    forget_earlier_processes()


def when_ready(server: Any) -> None:
    """The sockets are open, no worker is there yet: until then connections are refused, not left waiting.

    A gateway takes what is refused elsewhere; what waits for an application that is being made, it gives up.
    """
    for listener in server.LISTENERS:
        listener.sock.shutdown(socket.SHUT_RD)  # no longer listens, keeps its address


def post_worker_init(worker: Any) -> None:
    """A worker has made its application."""
    for listener in worker.sockets:
        listener.sock.listen(worker.cfg.backlog)
    serve_metrics(getattr(worker.wsgi, "extensions", {}).get(COLLECTORS, ()))


def on_exit(_server: Any) -> None:
    """After the last worker."""
    drop_folder()
