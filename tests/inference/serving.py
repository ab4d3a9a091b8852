"""The inference service as gunicorn serves it, in a process of its own, with a Redis that can be killed."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from flask import Flask

from services.inference.app import create_app
from stack.ports import HOST, free_ports
from stack.settings import ROOT
from stack.stores import redis_server
from tests.conftest import Keys

ENDPOINT_NAME = "esd-async-one"
WANTED = {
    "user_id": "ann",
    "inference_type": "Async",
    "task_type": "txt2img",
    "models": {"Stable-diffusion": ["shapes-v1.safetensors"]},
}
PARAMETERS = '{"prompt": "a red circle", "width": 64, "height": 64}'


def application() -> Flask:
    """What gunicorn serves: users' keys are the test's own."""
    pem = os.environ["TEST_PRIVATE_KEY"].encode()
    return create_app(users_keys=Keys(private=load_pem_private_key(pem, None)))  # type: ignore[arg-type]


class OwnRedis:
    """A Redis server on a port of its own."""

    def __init__(self, folder: Path) -> None:
        (port,) = free_ports(1)
        self.url = f"redis://{HOST}:{port}/0"
        self._program = redis_server(folder, port)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._process = subprocess.Popen(self._program.command, stdout=subprocess.DEVNULL)
        assert self._program.ready is not None
        wait_until(self._answers)

    def _answers(self) -> bool:
        try:
            return bool(self._program.ready and self._program.ready())
        except Exception:
            return False

    def kill(self) -> None:
        """kill -9."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


class Served:
    """The running service, and what clients and GPU workers ask of it."""

    def __init__(self, url: str, keys: Keys, redis: OwnRedis) -> None:
        self.url = url
        self.keys = keys
        self.redis = redis

    def ask(self, method: str, path: str, body: Any = None, **options: Any) -> requests.Response:
        """A user's call."""
        headers = self.keys.user(
            options.pop("user", "ann"), permissions=("inference:list", "inference:create", "inference:delete")
        )
        headers |= options.pop("headers", {})
        return requests.request(method, self.url + path, json=body, headers=headers, timeout=20, **options)

    def work(self, path: str, **body: Any) -> Any:
        """A GPU worker's call."""
        headers = self.keys.worker("worker-1")
        answer = requests.post(
            f"{self.url}/internal/{path}", json={"worker_id": "worker-1"} | body, headers=headers, timeout=20
        )
        assert answer.ok, answer.text
        return answer.json() if answer.content else None

    def created(self) -> str:
        """The id of a job whose parameters are there."""
        job = self.ask("POST", "/inferences", WANTED).json()["data"]["inference"]
        requests.put(job["api_params_s3_upload_url"], data=PARAMETERS, timeout=10).raise_for_status()
        return str(job["id"])

    def started(self) -> str:
        """The id of a job that waits in line."""
        job_id = self.created()
        assert self.ask("PUT", f"/inferences/{job_id}/start").status_code == 202
        return job_id

    def claimed(self) -> dict[str, Any]:
        """The next job in line, claimed."""
        (job,) = self.work("claim", endpoints=[ENDPOINT_NAME])["jobs"]
        return dict(job)


def wait_until(condition: Callable[[], Any], seconds: float = 60) -> None:
    """Wait until it holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.05)


@contextmanager
def serving(folder: Path, variables: dict[str, str], keys: Keys) -> Iterator[Served]:
    """Run gunicorn with these settings and a Redis of its own."""
    redis = OwnRedis(folder)
    (port,) = free_ports(1)
    pem = keys.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    mine = {"LISTEN": f"{HOST}:{port}", "REDIS_URL": redis.url, "TEST_PRIVATE_KEY": pem}
    log = (folder / "inference.log").open("wb")
    redis.start()
    process = subprocess.Popen(
        (
            *(sys.executable, "-m", "gunicorn", "-c", "services/common/gunicorn_config.py"),
            *("--no-control-socket", "tests.inference.serving:application()"),
        ),
        cwd=ROOT,
        env=os.environ | variables | mine,
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    url = f"http://{HOST}:{port}"
    try:
        wait_until(lambda: _ready(url))
        yield Served(url, keys, redis)
    finally:
        process.terminate()
        process.wait(40)
        redis.kill()
        log.close()


def _ready(url: str) -> bool:
    try:
        return requests.get(f"{url}/readyz", timeout=5).ok
    except requests.RequestException:
        return False
