"""What the worker's tests share: tiny checkpoints, a Redis, a fake platform, and a worker on it."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from gpu_worker.config import WorkerConfig
from gpu_worker.device import Device, choose_device
from gpu_worker.pipelines import ModelMemory
from gpu_worker.worker import Worker
from tests.gpu_worker import tiny
from tests.gpu_worker.platform import ENDPOINT, SECRET, Platform

NO_REDIS = "redis://127.0.0.1:1/0"


@pytest.fixture(scope="session")
def device() -> Device:
    torch.set_num_threads(1)  # two would wait for one another on a busy machine
    return choose_device()


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tiny checkpoints: sd1, sd1b (other weights) and xl."""
    folder: Path = tmp_path_factory.mktemp("models")
    tiny.write_sd1(folder / "sd1.safetensors")
    tiny.write_sd1(folder / "sd1b.safetensors", seed=1)
    tiny.write_xl(folder / "xl.safetensors")
    return folder


@pytest.fixture
def platform() -> Iterator[Platform]:
    running = Platform()
    yield running
    running.close()


def worker_config(platform_url: str, folder: Path, **changes: Any) -> WorkerConfig:
    environment = {
        "ENDPOINTS_URL": platform_url,
        "INFERENCE_URL": platform_url,
        "REDIS_URL": NO_REDIS,
        "WORKER_SECRET": SECRET,
        "WORKER_ID": "worker-1",
        "WORKER_CACHE_DIR": str(folder / "cache"),
        "WORKER_GRACE_SECONDS": "10",
    }
    return WorkerConfig.from_env(environment | changes)


StartWorker = Callable[..., Any]


class _NoBells:
    """The platform of these tests rings the loop itself; tests/gpu_worker/test_bells.py has the real ones."""

    def start(self) -> None: ...

    def stop(self) -> None: ...


@pytest.fixture
def start_worker(platform: Platform, tmp_path: Path, device: Device) -> StartWorker:
    """Starts a worker in a thread, waits until it serves the endpoint, and stops it at the block's end."""

    @contextmanager
    def start(**environment: str) -> Iterator[Worker]:
        worker = Worker(worker_config(platform.url, tmp_path, **environment), device)
        worker.bells = _NoBells()  # type: ignore[assignment]
        platform.ring = worker.loop.ring
        thread = threading.Thread(target=worker.run, daemon=True)
        thread.start()
        try:
            platform.wait_for(lambda: any(ENDPOINT in beat["endpoints"] for beat in platform.heartbeats))
            yield worker
        finally:
            worker.stop()
            thread.join(timeout=20)
            assert not thread.is_alive()

    return start


@pytest.fixture(scope="session")
def memory(device: Device) -> ModelMemory:
    """Keeps what tests load, the house checkpoint above all."""
    return ModelMemory(device, None)
