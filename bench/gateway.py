"""What the gateway costs: a trivial authenticated route through nginx and users, beside the same alone.

Both are asked by the same client over kept connections, in turns, because machines are noisy.
"""

import multiprocessing
import secrets
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import requests
from flask import Flask

from services.common.identity import HEADER, requires
from services.common.logs import set_up_logs
from services.common.resource_service import make_resource_app
from services.common.settings import InternalSettings, read_settings, setting
from services.common.web import ServiceBlueprint
from stack.infrastructure import infrastructure
from stack.ports import HOST, free_ports
from stack.settings import ROOT
from tests.gateway.running import gateway, running, users_service, wait_for
from tests.users.driver import ADMIN_KEY

ROUTE = "/checkpoints"  # where the gateway finds the service
CONNECTIONS = 8
ROUNDS = 10
SECONDS = 3.0
WARM_UP_SECONDS = 1.0
PROGRAMS = {"nginx": "nginx", "users": "services.users.app", "service": "bench.gateway:create_app"}

blp = ServiceBlueprint("trivial", __name__)


@blp.route(ROUTE)
@blp.answers(200)
@requires("checkpoint:list")
def trivial() -> None:
    """Nothing but what every route of every service does."""


def create_app() -> Flask:
    """A service as the others are, with one route."""

    @dataclass(frozen=True)
    class Config:
        internal: InternalSettings
        redis_url: str = setting("REDIS_URL", "where requests of limited API keys are counted")

    set_up_logs("trivial")
    config = read_settings(Config)
    return make_resource_app("trivial", config.internal, [blp], {}, redis_url=config.redis_url)


def run() -> dict[str, Any]:
    """Requests per second of both ways, and the first as a share of the second."""
    with deployment() as (gate, service_port, users_port):
        token = gate.sign_in()["access_token"]
        outside = {"x-api-key": ADMIN_KEY, "Authorization": f"Bearer {token}"}
        through, direct = [], []
        # Forked processes would inherit the sockets of the deployment.
        with ProcessPoolExecutor(CONNECTIONS, multiprocessing.get_context("spawn")) as clients:
            rate = partial(requests_per_second, clients)
            rate(gate.port, outside, WARM_UP_SECONDS)
            spent = dict.fromkeys(PROGRAMS, 0.0)
            for _ in range(ROUNDS):
                direct.append(rate(service_port, inside(users_port, outside), SECONDS))
                before = processor_seconds()
                through.append(rate(gate.port, outside, SECONDS))
                spent = {name: spent[name] + now - before[name] for name, now in processor_seconds().items()}
    ratios = [one / other for one, other in zip(through, direct, strict=True)]
    return {
        "ratio": round(statistics.median(ratios), 3),
        "ratio_lowest": round(min(ratios), 3),
        "ratio_highest": round(max(ratios), 3),
        "requests_per_second": round(statistics.median(through), 1),
        "direct_requests_per_second": round(statistics.median(direct), 1),
        # What a request through the gateway costs: where all cores are busy, the ratio comes from this.
        **{
            f"{name}_cpu_ms": round(seconds * 1000 / (sum(through) * SECONDS), 3)
            for name, seconds in spent.items()
        },
        "connections": CONNECTIONS,
        "rounds": ROUNDS,
    }


@contextmanager
def deployment() -> Iterator[tuple[Any, int, int]]:
    """Users, the trivial service and the gateway as the stack runs them; the gateway, and their ports."""
    with ExitStack() as started:
        folder = Path(started.enter_context(tempfile.TemporaryDirectory(prefix="sdfleet-bench-")))
        parts = started.enter_context(infrastructure(folder / "stores"))
        users_port, service_port, nobody = free_ports(3)
        environment = {
            "MONGODB_URL": parts.mongodb_url,
            "REDIS_URL": parts.redis_url,
            "SERVICE_SECRET": secrets.token_hex(24),
            "USERS_URL": f"http://{HOST}:{users_port}",
        }
        started.enter_context(users_service(folder, environment, users_port))
        command = [
            *(sys.executable, "-m", "gunicorn", "-c", str(ROOT / "services/common/gunicorn_config.py")),
            "bench.gateway:create_app()",
        ]
        listen = {"LISTEN": f"{HOST}:{service_port}"}
        started.enter_context(running(command, folder / "trivial.log", **environment, **listen))
        wait_for(lambda: requests.get(f"http://{HOST}:{service_port}/readyz", timeout=2).ok, 40)
        upstreams = {
            "USERS_UPSTREAM": f"server {HOST}:{users_port};",
            "CHECKPOINTS_UPSTREAM": f"server {HOST}:{service_port};",
            "ENDPOINTS_UPSTREAM": f"server {HOST}:{nobody};",
            "INFERENCE_UPSTREAM": f"server {HOST}:{nobody};",
            "DATASETS_UPSTREAM": f"server {HOST}:{nobody};",
            "TRAINING_UPSTREAM": f"server {HOST}:{nobody};",
        }
        gate = started.enter_context(gateway(folder, GATEWAY_WORKERS="auto", **upstreams))
        yield gate, service_port, users_port


def processor_seconds() -> dict[str, float]:
    """What each program of the deployment has computed so far."""
    spent = dict.fromkeys(PROGRAMS, 0.0)
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            command, times = " ".join(process.cmdline()), process.cpu_times()
            for name, sign in PROGRAMS.items():
                spent[name] += times.user + times.system if sign in command else 0.0
    return spent


def inside(users_port: int, outside: dict[str, str]) -> dict[str, str]:
    """What the gateway would send on: the internal token that users gives for these credentials."""
    url = f"http://{HOST}:{users_port}/internal/authenticate"
    return {HEADER: requests.get(url, headers=outside, timeout=5).headers[HEADER]}


def requests_per_second(
    clients: ProcessPoolExecutor, port: int, headers: dict[str, str], seconds: float
) -> float:
    """Of all connections together; every answer must be good."""
    begin = time.time() + 0.2
    jobs = [clients.submit(ask_for, port, headers, begin, seconds) for _ in range(CONNECTIONS)]
    return sum(job.result() for job in jobs) / seconds


def ask_for(port: int, headers: dict[str, str], begin: float, seconds: float) -> int:
    """Ask one after the other over one connection; how many answers came. As little work as possible."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    request = f"GET {ROUTE} HTTP/1.1\r\nHost: {HOST}\r\n{lines}\r\n".encode()
    answers = 0
    with socket.create_connection((HOST, port), timeout=10) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        time.sleep(max(0.0, begin - time.time()))
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            connection.sendall(request)
            check(connection)
            answers += 1
    return answers


def check(connection: socket.socket) -> None:
    """Read one whole answer. Raises RuntimeError when it is not 200."""
    came = b""
    while b"\r\n\r\n" not in came:
        piece = connection.recv(65536)
        if not piece:
            raise RuntimeError(f"the connection ended after {came!r}")
        came += piece
    head, _, body = came.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(head.decode("latin-1"))
    length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n", 1)[0])
    while len(body) < length:
        body += connection.recv(65536)
