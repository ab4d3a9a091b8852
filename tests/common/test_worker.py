"""How gunicorn's worker ends: what it has begun is answered, what comes later is refused."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import requests

from tests.gateway.running import HOST, ROOT, free_port, wait_for


def test_a_worker_that_ends_answers_what_it_began_and_refuses_new_connections_at_once(tmp_path: Path) -> None:
    port, waiting, go_on = free_port(), tmp_path / "waiting", tmp_path / "go-on"
    command = [
        *(sys.executable, "-m", "gunicorn", "-c", "services/common/gunicorn_config.py"),
        "--no-control-socket",
        "tests.common.waiting_app:app",
    ]
    environment = {"LISTEN": f"{HOST}:{port}", "WAITING_FILE": str(waiting), "GO_ON_FILE": str(go_on)}
    with subprocess.Popen(command, cwd=ROOT, env=os.environ | environment) as server:
        try:
            url, statuses = f"http://{HOST}:{port}", []
            wait_for(lambda: requests.get(url, timeout=5).ok)
            begun = threading.Thread(
                target=lambda: statuses.append(requests.get(f"{url}/wait", timeout=120).status_code)
            )
            begun.start()
            wait_for(waiting.exists)
            server.send_signal(signal.SIGTERM)
            wait_for(lambda: refused(url))
            assert server.poll() is None, "it ended before its answer"
            go_on.touch()
            begun.join(60)
            assert statuses == [200]
            server.wait(60)
        finally:
            server.kill()


def refused(url: str) -> bool:
    try:
        requests.get(url, timeout=5)
    except requests.ConnectionError as error:
        return "refused" in str(error)
    return False
