"""A real process of ``python -m gpu_worker serve``."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from stack.infrastructure import die_with_parent
from stack.ports import free_ports
from stack.settings import ROOT


@dataclass(frozen=True)
class Served:
    """A container as SageMaker sees it."""

    url: str
    process: subprocess.Popen[bytes]
    first_pings: list[int]

    def ping(self) -> int:
        """The status of /ping, 0 when nobody answers."""
        try:
            return requests.get(f"{self.url}/ping", timeout=10).status_code
        except requests.ConnectionError:
            return 0

    def invoke(self, body: Any) -> requests.Response:
        """POST /invocations; `body` is JSON, or bytes as they are."""
        kind = {"data": body} if isinstance(body, bytes) else {"json": body}
        return requests.post(f"{self.url}/invocations", timeout=120, **kind)


@contextmanager
def served(folder: Path, program: tuple[str, ...] = ("-m", "gpu_worker"), **more: str) -> Iterator[Served]:
    """Starts it, waits until it takes jobs, and ends it with the block."""
    (port,) = free_ports(1)
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    environment |= {
        "SAGEMAKER_BIND_TO_PORT": str(port),
        "WORKER_CACHE_DIR": str(folder / "cache"),
        "OMP_NUM_THREADS": "1",
    }
    with (folder / "serve.log").open("wb") as log:
        process = subprocess.Popen(
            (sys.executable, *program, "serve"),
            env=environment | more,
            cwd=ROOT,
            stdout=log,
            stderr=log,
            preexec_fn=die_with_parent,
        )
    running = Served(f"http://127.0.0.1:{port}", process, [])
    try:
        deadline = time.monotonic() + 120
        while (status := running.ping()) != 200:
            assert process.poll() is None and time.monotonic() < deadline, (folder / "serve.log").read_text()
            running.first_pings.append(status)
            time.sleep(0.05)
        yield running
    finally:
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
