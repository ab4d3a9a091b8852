"""What a worker counts for Prometheus, and the port on which it shows it (METRICS_LISTEN)."""

import logging
import socketserver
import threading
from collections.abc import Iterable, Mapping
from itertools import pairwise
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import torch
from prometheus_client import REGISTRY, Counter, Histogram, make_wsgi_app
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

log = logging.getLogger(__name__)

JOBS = Counter(
    "sdfleet_worker_jobs",
    "Attempts that ended here: completed, dropped, or failed by the fault of request, passing, machine",
    ["task_type", "outcome"],
)
IMAGES = Counter("sdfleet_worker_images", "Pictures that were delivered", ["task_type"])
PHASE_SECONDS = Histogram(
    "sdfleet_worker_phase_seconds",
    "Parts of completed attempts, each named by its end",
    ["phase"],
    buckets=(0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0),
)
STEPS = Counter("sdfleet_denoising_steps", "Denoising steps, of a batch of pictures each")
STEP_SECONDS = Histogram(
    "sdfleet_denoising_step_seconds",
    "Seconds for each denoising step, one value for each batch",
    buckets=(0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0),
)
CACHE = Counter("sdfleet_cache_lookups", "Models looked for on disk and in memory", ["cache", "result"])
DOWNLOADED = Counter("sdfleet_checkpoint_download_bytes", "Bytes of checkpoint files fetched from S3")
MEMORY = "sdfleet_worker_memory_bytes"


def completed(task_type: str, images: int, timings: Mapping[str, float]) -> None:
    """A job is delivered."""
    JOBS.labels(task_type, "completed").inc()
    IMAGES.labels(task_type).inc(images)
    for (_, start), (name, end) in pairwise(timings.items()):
        PHASE_SECONDS.labels(name.removesuffix("_at")).observe(max(0.0, end - start))


def ended(task_type: str, outcome: str) -> None:
    """An attempt brought no result."""
    JOBS.labels(task_type, outcome).inc()


def denoised(steps: int, seconds: float) -> None:
    """So many steps were made for a batch."""
    STEPS.inc(steps)
    STEP_SECONDS.observe(seconds / max(steps, 1))


def looked_up(cache: str, hit: bool) -> None:
    """A model was asked for: `disk` or `memory`."""
    CACHE.labels(cache, "hit" if hit else "miss").inc()


class Memory(Collector):
    """The device's memory when it is asked for; nothing on a CPU, whose process metrics say it."""

    def describe(self) -> Iterable[Metric]:
        """The name, without asking."""
        return [GaugeMetricFamily(MEMORY, "", labels=["kind"])]

    def collect(self) -> Iterable[Metric]:
        """Bytes of tensors (allocated), of PyTorch (reserved), used by anybody, and in all."""
        family = GaugeMetricFamily(MEMORY, "Memory of the GPU", labels=["kind"])
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            free, total = torch.cuda.mem_get_info()
            family.add_metric(["allocated"], torch.cuda.memory_allocated())
            family.add_metric(["reserved"], torch.cuda.memory_reserved())
            family.add_metric(["used"], total - free)
            family.add_metric(["total"], total)
        return [family]


REGISTRY.register(Memory())


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    timeout = 10

    def log_message(self, *_: object) -> None:
        return None


def serve_metrics(listen: str) -> _Server | None:
    """Answer on `listen` (HOST:PORT or :PORT) from a thread; a worker whose port is taken works on."""
    if not listen:
        return None
    host, _, port = listen.rpartition(":")
    try:
        server = _Server((host or "0.0.0.0", int(port)), _Quiet)  # noqa: S104 - a network of the deployment's
    except (OSError, ValueError) as error:
        log.error("metrics cannot be shown", extra={"listen": listen, "reason": str(error)})
        return None
    server.set_app(make_wsgi_app(REGISTRY))
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return server
