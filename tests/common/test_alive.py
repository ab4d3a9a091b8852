"""Celery processes tell that they are connected, and stop telling when they are not."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

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


@pytest.mark.parametrize(("age", "status"), [(5, 0), (300, 1)])
def test_a_container_is_healthy_while_the_file_is_fresh(tmp_path: Path, age: int, status: int) -> None:
    """services/healthcheck.py and the worker's own, which differ in what they ask when there is no file."""
    alive = tmp_path / "alive"
    alive.touch()
    os.utime(alive, (time.time() - age,) * 2)
    for folder in ("services", "gpu_worker"):
        text = (ROOT / folder / "healthcheck.py").read_text().replace("/tmp/alive", str(alive))
        check = tmp_path / f"{folder}.py"
        check.write_text(text)
        assert subprocess.run([sys.executable, "-S", "-E", check], check=False).returncode == status
