"""Celery processes tell that they are connected, and stop telling when they are not."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.gateway.running import HOST, ROOT, free_port, running, wait_for

WORKER = ("-A", "services.datasets.tasks", "worker", "-Q", "datasets", "--concurrency", "1")
BEAT = ("-A", "services.common.beat", "beat", "-S", "services.common.beat:Scheduler", "--pidfile=")


@pytest.mark.parametrize("command", [WORKER, BEAT], ids=["worker", "beat"])
def test_the_file_is_touched_again_and_again_while_a_process_is_connected(
    environment: Callable[..., dict[str, str]], tmp_path: Path, command: tuple[str, ...]
) -> None:
    alive = tmp_path / "alive"
    celery = [sys.executable, "-m", "celery", *command]
    with running(celery, tmp_path / "log", **environment(ALIVE_FILE=str(alive))):
        wait_for(alive.exists, 120)
        first = alive.stat().st_mtime
        wait_for(lambda: alive.stat().st_mtime > first, 120)


def test_a_worker_that_reaches_no_broker_does_not_tell_that_it_works(
    environment: Callable[..., dict[str, str]], tmp_path: Path
) -> None:
    alive, log = tmp_path / "alive", tmp_path / "log"
    celery = [sys.executable, "-m", "celery", *WORKER]
    nowhere = f"redis://{HOST}:{free_port()}/0"
    with running(celery, log, **environment(ALIVE_FILE=str(alive), REDIS_URL=nowhere)):
        wait_for(lambda: "Trying again" in log.read_text(), 120)
        assert not alive.exists()


@pytest.mark.parametrize("folder", ["services", "gpu_worker"])
@pytest.mark.parametrize(("age", "status"), [(5, 0), (300, 1)])
def test_a_container_is_healthy_while_the_file_is_fresh(
    tmp_path: Path, folder: str, age: int, status: int
) -> None:
    alive = tmp_path / "alive"
    alive.touch()
    os.utime(alive, (time.time() - age,) * 2)
    assert _checked(folder, tmp_path) == status


@pytest.mark.parametrize(("answer", "status"), [(HTTPStatus.OK, 0), (HTTPStatus.SERVICE_UNAVAILABLE, 1)])
def test_a_container_that_serves_sagemaker_is_healthy_while_ping_is_answered(
    tmp_path: Path, answer: HTTPStatus, status: int
) -> None:
    class Front(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(answer if self.path == "/ping" else HTTPStatus.NOT_FOUND)
            self.end_headers()

    with HTTPServer((HOST, 0), Front) as front:
        Thread(target=front.serve_forever).start()
        try:
            assert _checked("gpu_worker", tmp_path, SAGEMAKER_BIND_TO_PORT=str(front.server_port)) == status
        finally:
            front.shutdown()


@pytest.mark.parametrize("folder", ["services", "gpu_worker"])
def test_a_container_that_nobody_answers_in_is_not_healthy(tmp_path: Path, folder: str) -> None:
    assert _checked(folder, tmp_path, SAGEMAKER_BIND_TO_PORT=str(free_port())) == 1


def _checked(folder: str, place: Path, **environment: str) -> int:
    """How the health check of an image ends, with the file below `place`."""
    check = place / f"{folder}.py"
    check.write_text(
        (ROOT / folder / "healthcheck.py").read_text().replace("/tmp/alive", str(place / "alive"))
    )
    return subprocess.run([sys.executable, "-S", "-E", check], check=False, env=environment).returncode
