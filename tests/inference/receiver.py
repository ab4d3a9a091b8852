"""A server that webhooks are sent to, and a verification as docs/events.md tells receivers to write it."""

import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Receiver:
    """What came, and what is answered next (the last answer goes on)."""

    url: str = ""
    answers: list[int] = field(default_factory=lambda: [200])
    location: str = ""
    gate: threading.Event = field(default_factory=threading.Event)  # answers go through when it is set
    came: list[tuple[Mapping[str, str], bytes]] = field(default_factory=list)

    @property
    def bodies(self) -> list[dict[str, Any]]:
        """The events as JSON."""
        return [json.loads(body) for _, body in self.came]


@contextmanager
def receiver() -> Iterator[Receiver]:
    """Run it on a free port of the loopback address."""
    running = Receiver()
    running.gate.set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            running.came.append((dict(self.headers.items()), body))
            running.gate.wait(60)
            status = running.answers.pop(0) if len(running.answers) > 1 else running.answers[0]
            self.send_response(status)
            if running.location:
                self.send_header("Location", running.location)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.url = f"http://127.0.0.1:{server.server_port}/hook"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield running
    finally:
        server.shutdown()
        server.server_close()


def is_genuine(secret: str, headers: Mapping[str, str], body: bytes) -> bool:
    """Whether the platform signed this body."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return any(hmac.compare_digest(expected, one) for one in headers["webhook-signature"].split())
