"""A real HTTP server to import from, that behaves in every way that servers do."""

import http.server
import re
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.checkpoints.conftest import unique


class Source(http.server.ThreadingHTTPServer):
    """Serves `files[path]`; `behaviour[path]` says how."""

    daemon_threads = True

    def __init__(self, certificate: Path | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.scheme = "http"
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
            self.scheme = "https"
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
        return f"{self.scheme}://{self.host}{path}?token=secret"

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
def running_source(certificate: Path | None = None) -> Iterator[Source]:
    """Run the server on a free port of the loopback address; with a certificate over TLS."""
    with Source(certificate) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


def make_certificate(path: Path) -> Path:
    """A key and a certificate for 127.0.0.1 that vouches for itself."""
    key, moment = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "sdfleet test")])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(moment - timedelta(hours=1))
        .not_valid_after(moment + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    return path
