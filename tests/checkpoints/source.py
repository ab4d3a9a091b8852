"""A real HTTP server to import from, that behaves in every way that servers do."""

import http.server
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.checkpoints.conftest import unique


class Source(http.server.ThreadingHTTPServer):
    """Serves `files[path]`; `behaviour[path]` says how."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.behaviour: dict[str, Callable[[Any, bytes], None]] = {}
        self.ranges: dict[str, list[str | None]] = {}

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server_port}"

    def add(
        self, content: bytes, name: str | None = None, how: Callable[[Any, bytes], None] | None = None
    ) -> str:
        """The URL of a new file."""
        path = f"/{name or unique('import')}"
        self.files[path] = content
        if how:
            self.behaviour[path] = how
        return f"http://{self.host}{path}?token=secret"

    def handle_error(self, *_: Any) -> None:
        """Broken connections are what these tests are about."""


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Source

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.server.ranges.setdefault(path, []).append(self.headers.get("Range"))
        if path not in self.server.files:
            self.send_error(404)
            return
        self.server.behaviour.get(path, plain)(self, self.server.files[path])

    def start(self, status: int, **headers: Any) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


def plain(handler: Handler, content: bytes) -> None:
    send(handler, content, len(content))


def send(handler: Handler, content: bytes, most: int, etag: str = '"v1"') -> None:
    """Answer with ranges; break the connection after `most` bytes."""
    asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range") or "")
    start = int(asked[1]) if asked and handler.headers.get("If-Range", etag) == etag else 0
    length = len(content) - start
    if start:
        span = f"bytes {start}-{len(content) - 1}/{len(content)}"
        handler.start(206, Content_Length=length, Content_Range=span, ETag=etag)
    else:
        handler.start(200, Content_Length=length, ETag=etag)
    handler.wfile.write(content[start : start + most])
    handler.close_connection = most < length


@contextmanager
def running_source() -> Iterator[Source]:
    """Run the server on a free port of the loopback address."""
    with Source() as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()
