"""Shows a service's metrics on a port of their own, which no gateway leads to (METRICS_LISTEN)."""

import logging
import os
import shutil
import socketserver
import threading
from collections.abc import Iterable
from pathlib import Path
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import REGISTRY, CollectorRegistry, make_wsgi_app
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

log = logging.getLogger(__name__)

LISTEN = "METRICS_LISTEN"
FOLDER = "PROMETHEUS_MULTIPROC_DIR"
COLLECTORS = "sdfleet-collectors"  # the Flask extension that lists what is looked up when somebody asks


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    """Several processes of a service may listen on the port; whoever is asked answers for all."""

    allow_reuse_port = True
    daemon_threads = True
    request_queue_size = 16


class _Quiet(WSGIRequestHandler):
    timeout = 10

    def log_message(self, *_: object) -> None:
        return None


def forget_earlier_processes() -> None:
    """Empty the folder of values that a killed process left; called once, before any process counts."""
    folder = os.environ.get(FOLDER)
    if not folder:
        return
    Path(folder).mkdir(parents=True, exist_ok=True)
    own = f"_{os.getpid()}.db"
    for file in Path(folder).glob("*.db"):
        if not file.name.endswith(own):
            file.unlink(missing_ok=True)


def drop_folder() -> None:
    """Remove the folder at the end of the process that made it."""
    if folder := os.environ.get(FOLDER):
        shutil.rmtree(folder, ignore_errors=True)


def serve_metrics(collectors: Iterable[Collector] = (), listen: str | None = None) -> _Server | None:
    """Answer on `listen` (HOST:PORT or :PORT; METRICS_LISTEN) from a thread; None where it is empty or cannot
    be had.

    A service that cannot show its metrics still does its work: the log says why.
    """
    listen = os.environ.get(LISTEN, "") if listen is None else listen
    if not listen:
        return None
    host, _, port = listen.rpartition(":")
    try:
        server = _Server((host or "0.0.0.0", int(port)), _Quiet)  # noqa: S104 - a network of the deployment's
    except (OSError, ValueError) as error:
        log.error("metrics cannot be shown", extra={"listen": listen, "reason": str(error)})
        return None
    server.set_app(make_wsgi_app(_registry(collectors)))
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return server


def _registry(collectors: Iterable[Collector]) -> CollectorRegistry:
    registry = REGISTRY
    if os.environ.get(FOLDER):
        registry = CollectorRegistry()
        MultiProcessCollector(registry)
    for collector in collectors:
        registry.register(collector)
    return registry
