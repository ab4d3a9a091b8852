"""How gunicorn begins and ends: what it has begun is answered, what comes early or late is refused."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import requests

from tests.gateway.running import HOST, ROOT, free_port, wait_for


@contextlib.contextmanager
def served(app: str, folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], str, Path, Path]]:
    """gunicorn as services run it: the process, its address, the file it makes, the file it waits for."""
    port, waiting, go_on = free_port(), folder / "waiting", folder / "go-on"
    command = [
        *(sys.executable, "-m", "gunicorn", "-c", "services/common/gunicorn_config.py"),
        *("--no-control-socket", app),
    ]
    environment = {"LISTEN": f"{HOST}:{port}", "WAITING_FILE": str(waiting), "GO_ON_FILE": str(go_on)}
    with subprocess.Popen(command, cwd=ROOT, env=os.environ | environment) as server:
        try:
            yield server, f"http://{HOST}:{port}", waiting, go_on
            server.wait(60)
        finally:
            server.kill()


def test_connections_are_refused_until_the_application_is_made(tmp_path: Path) -> None:
    with served("tests.common.starting_app:create_app()", tmp_path) as (server, url, waiting, go_on):
        wait_for(waiting.exists, 60)
        assert refused(url)
        go_on.touch()
        wait_for(lambda: requests.get(url, timeout=5).ok, 60)
        server.send_signal(signal.SIGTERM)


def test_a_worker_that_ends_answers_what_it_began_and_refuses_new_connections_at_once(tmp_path: Path) -> None:
    with served("tests.common.waiting_app:app", tmp_path) as (server, url, waiting, go_on):
        wait_for(lambda: requests.get(url, timeout=5).ok, 60)
        statuses: list[int] = []
        begun = threading.Thread(
            target=lambda: statuses.append(requests.get(f"{url}/wait", timeout=120).status_code)
        )
        begun.start()
        wait_for(waiting.exists, 60)
        server.send_signal(signal.SIGTERM)
        wait_for(lambda: refused(url), 60)
        assert server.poll() is None, "it ended before its answer"
        go_on.touch()
        begun.join(60)
        assert statuses == [200]


def refused(url: str) -> bool:
    try:
        requests.get(url, timeout=5)
    except requests.ConnectionError as error:
        return "refused" in str(error)
    return False
