"""A real gateway with a real users service, and stand-ins that tell what reached them."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import requests

from stack.binaries import find
from tests.users.driver import ADMIN, ADMIN_KEY, ADMIN_PASSWORD, CHEAP_PASSWORDS

ROOT = Path(__file__).resolve().parents[2]
HOST = "127.0.0.1"


def free_port(host: str = HOST) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def wait_for(condition: Callable[[], Any], seconds: float = 20) -> None:
    """Wait until the condition is true; what it raises counts as not yet."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if condition():
                return
        except (OSError, requests.RequestException):
            pass
        if time.monotonic() > deadline:
            raise AssertionError(f"this did not come true in {seconds} s")
        time.sleep(0.02)


@contextlib.contextmanager
def running(command: list[str], log: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process with its output in `log`; killed at the end."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=output, stderr=output, env=os.environ | environment
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Echo(BaseHTTPRequestHandler):
    """Answers what it was asked; `/…/status/418` answers 418."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer leaves in one piece

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status = int(self.path.rsplit("/status/")[1]) if "/status/" in self.path else 200
        told = {
            "name": self.server.name,  # type: ignore[attr-defined]
            "method": self.command,
            "path": self.path,
            "headers": {name.lower(): value for name, value in self.headers.items()},
            "count": len(self.headers.items()),
            "bytes": len(body),
        }
        text = json.dumps(told).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.send_header("X-Request-Id", "the service's own")
        self.send_header("X-Internal-Token", "leaked")
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = answer  # noqa: N815

    def log_message(self, *_: Any) -> None:
        return


class _EchoServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], name: str) -> None:
        super().__init__(address, Echo)
        self.name = name
        self.open_sockets: set[socket.socket] = set()

    def get_request(self) -> Any:
        connection, address = super().get_request()
        self.open_sockets.add(connection)
        return connection, address

    def handle_error(self, *_: Any) -> None:
        return

    def die(self) -> None:
        """End as a killed process does: every connection at once."""
        self.shutdown()
        self.server_close()
        for connection in self.open_sockets:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
                connection.close()


@contextlib.contextmanager
def echo(name: str, host: str = HOST, port: int = 0) -> Iterator[_EchoServer]:
    """A stand-in for a service."""
    server = _EchoServer((host, port), name)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield server
    finally:
        server.die()


def render(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run render.sh with this environment only."""
    return subprocess.run(
        ["sh", str(ROOT / "gateway" / "render.sh"), str(folder)],
        env={"PATH": os.environ["PATH"]} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@dataclass
class Gateway:
    """A running gateway and an administrator who is signed in."""

    url: str
    port: int
    log: Path
    folder: Path
    token: str = ""
    certificate: Path | None = None

    def call(self, method: str, path: str, **options: Any) -> requests.Response:
        """A request with key and token unless `headers` say otherwise (None leaves one out)."""
        headers = {"x-api-key": ADMIN_KEY, "Authorization": f"Bearer {self.token}"}
        headers |= options.pop("headers", {})
        kept = {name: value for name, value in headers.items() if value is not None}
        with requests.Session() as session:
            session.trust_env = False
            if "Authorization" not in kept:
                session.auth = lambda prepared: prepared  # nothing from anywhere else
            return session.request(
                method,
                self.url + path,
                headers=kept,
                timeout=30,
                verify=self.certificate and str(self.certificate),
                **options,
            )

    def raw(self, text: bytes, seconds: float = 10) -> bytes:
        """Send bytes as they are; returns the whole answer, empty when the gateway hangs up without one."""
        with socket.create_connection((HOST, self.port), timeout=seconds) as connection:
            connection.sendall(text)
            came = b""
            while piece := connection.recv(65536):
                came += piece
                head, end, body = came.partition(b"\r\n\r\n")
                length = re.search(rb"(?i)content-length: (\d+)", head)
                if end and length and len(body) >= int(length[1]):
                    break
            return came

    def path_as_it_is(self, path: str) -> tuple[int, str]:
        """GET a path that no client library would leave as it is; status and body."""
        request = (
            f"GET {path} HTTP/1.1\r\nHost: gateway\r\nx-api-key: {ADMIN_KEY}\r\n"
            f"Authorization: Bearer {self.token}\r\nConnection: close\r\n\r\n"
        )
        head, _, body = self.raw(request.encode("latin-1")).partition(b"\r\n\r\n")
        return int(head.split()[1]), body.decode()

    def sign_in(self, **body: str) -> dict[str, Any]:
        body = body or {"username": ADMIN, "password": ADMIN_PASSWORD}
        answer = self.call("POST", "/auth/token", json=body, headers={"Authorization": None})
        assert answer.status_code == 200, answer.text
        data: dict[str, Any] = answer.json()["data"]
        return data


@contextlib.contextmanager
def gateway(folder: Path, **environment: str) -> Iterator[Gateway]:
    """nginx as configured by render.sh on a free port."""
    port, log = free_port(), folder / "gateway.log"
    settings = {"GATEWAY_LISTEN": f"{HOST}:{port}", "GATEWAY_WORKERS": "1"} | environment
    rendered = render(folder / "gateway", **settings)
    assert rendered.returncode == 0, rendered.stderr
    command = [str(find("nginx")), "-p", str(folder / "gateway"), "-c", "nginx.conf", "-g", "daemon off;"]
    with running(command, log):
        scheme = "https" if environment.get("GATEWAY_TLS_CERT") else "http"
        found = Gateway(f"{scheme}://{HOST}:{port}", port, log, folder / "gateway")
        wait_for(lambda: socket.create_connection((HOST, port), 1).close() is None)
        yield found


@contextlib.contextmanager
def users_service(folder: Path, environment: dict[str, str], port: int) -> Iterator[subprocess.Popen[bytes]]:
    """The users service under gunicorn."""
    command = [
        *(sys.executable, "-m", "gunicorn", "-c", "services/common/gunicorn_config.py"),
        "services.users.app:create_app()",
    ]
    first = {"ADMIN_PASSWORD": ADMIN_PASSWORD, "ADMIN_API_KEY": ADMIN_KEY, "LISTEN": f"{HOST}:{port}"}
    with running(command, folder / "users.log", **(environment | CHEAP_PASSWORDS | first)) as process:
        url = f"http://{HOST}:{port}/readyz"
        wait_for(lambda: requests.get(url, timeout=2).status_code == 200, 40)
        yield process
