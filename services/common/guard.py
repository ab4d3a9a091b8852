"""HTTP to addresses that strangers name: the address that is connected to is the one that was checked.

The check is made where the socket is opened, on what the name resolves to at that moment. So every spelling
of an address (decimal, octal, IPv6-mapped), every redirect and every answer of a
rebinding DNS goes through it.
"""

import ipaddress
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import NewConnectionError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
NAT64 = ipaddress.ip_network("64:ff9b::/96")


class RefusedAddress(Exception):
    """The address is not one that may be fetched from; the text says why."""


def parse_allowed(text: str) -> tuple[str, ...]:
    """Hosts that may be fetched from although they are private: `host` or `host:port`, by commas."""
    return tuple(entry.strip().lower() for entry in text.split(",") if entry.strip())


def is_public(address: Address) -> bool:
    """Whether the address belongs to the public internet, also what an IPv6 address carries inside."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
        if inner is None and (address in NAT64 or int(address) >> 32 == 0):
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
        if address.is_site_local:
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def check_url(url: str) -> None:
    """Raise RefusedAddress unless it is an http or https URL with a host and without a password."""
    try:
        split = urlsplit(url)
        port_is_valid = split.port is None or split.port > 0
    except ValueError:
        raise RefusedAddress("it is not a URL") from None
    if split.scheme not in {"http", "https"}:
        raise RefusedAddress(f'only http and https are fetched, not "{split.scheme[:20]}"')
    if not split.hostname or not port_is_valid:
        raise RefusedAddress("it names no host")
    if split.username is not None or split.password is not None:
        raise RefusedAddress("it holds a user name or a password")


class GuardedSession(requests.Session):
    """A requests session that reaches public addresses and the allowed hosts alone."""

    def __init__(self, allowed: tuple[str, ...], connect_seconds: float = 10.0) -> None:
        super().__init__()
        self.trust_env = False  # a proxy would connect in our place, unchecked
        self._sockets: set[socket.socket] = set()
        adapter = _GuardedAdapter(allowed, connect_seconds, self._sockets)
        self.mount("http://", adapter)
        self.mount("https://", adapter)

    @contextmanager
    def at_most(self, seconds: float) -> Iterator[None]:
        """Cut the session's connections when the block takes longer: read timeouts do not see a trickle."""
        timer = threading.Timer(seconds, self.cut)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def cut(self) -> None:
        """Break the open connections; whoever reads from them gets an error."""
        for one in list(self._sockets):
            with suppress(OSError):  # it has ended already
                one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End the session and its connections."""
        self.cut()
        super().close()
        while self._sockets:
            self._sockets.pop().close()


class _GuardedAdapter(HTTPAdapter):
    def __init__(self, allowed: tuple[str, ...], seconds: float, sockets: set[socket.socket]) -> None:
        self._opening = _Opening(allowed, seconds, sockets)
        super().__init__(max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        opening = self._opening

        class Http(HTTPConnection):
            def _new_conn(self) -> socket.socket:
                return opening.open(self, self._dns_host, self.port)

        class Https(HTTPSConnection):
            def _new_conn(self) -> socket.socket:
                return opening.open(self, self._dns_host, self.port)

        class HttpPool(HTTPConnectionPool):
            ConnectionCls = Http

        class HttpsPool(HTTPSConnectionPool):
            ConnectionCls = Https

        self.poolmanager.pool_classes_by_scheme = {"http": HttpPool, "https": HttpsPool}


class _Opening:
    """Opens checked sockets."""

    def __init__(self, allowed: tuple[str, ...], seconds: float, sockets: set[socket.socket]) -> None:
        self._allowed = allowed
        self._seconds = seconds
        self._sockets = sockets

    def open(self, connection: HTTPConnection, host: str, port: int | None) -> socket.socket:
        """A socket to `host`, when all addresses that it resolves to are public or the host is allowed."""
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise NewConnectionError(connection, f"{host} cannot be resolved") from error
        if host.lower() not in self._allowed and f"{host.lower()}:{port}" not in self._allowed:
            for *_, place in found:
                if not is_public(ipaddress.ip_address(str(place[0]).partition("%")[0])):
                    raise RefusedAddress(f"{host} is not a public address")
        return self._connect(connection, found)

    def _connect(self, connection: HTTPConnection, found: list[Any]) -> socket.socket:
        last: OSError | None = None
        for family, kind, protocol, _, place in found:
            opened = socket.socket(family, kind, protocol)
            opened.settimeout(self._seconds)
            try:
                opened.connect(place)
            except OSError as error:
                opened.close()
                last = error
                continue
            # TLS wraps the socket, which is then of no use; a duplicate still reaches the connection.
            self._sockets.add(opened.dup())
            return opened
        raise NewConnectionError(connection, "no connection") from last
