"""The guard of imports: what is reached, and what is not, in whatever spelling."""

import contextlib
import ipaddress
import socket
import threading
import time
from typing import Any

import pytest
import requests

from services.common.guard import GuardedSession, RefusedAddress, check_url, is_public, parse_allowed


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "::ffff:8.8.8.8"])
def test_public_addresses_are_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "0.1.2.3",
        "10.1.2.3",
        "100.64.0.1",
        "127.0.0.1",
        "127.9.9.9",
        "169.254.169.254",
        "172.16.0.1",
        "192.0.0.1",
        "192.168.1.1",
        "198.18.0.1",
        "224.0.0.1",
        "239.255.255.250",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::7f00:1",
        "64:ff9b::a00:1",
        "2002:7f00:1::",
        "2002:a9fe:a9fe::",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fec0::1",
        "ff02::1",
        "2001:db8::1",
        "2001:0:7f00:1:0:0:80ff:fffe",
    ],
)
def test_private_and_special_addresses_are_not_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://example.org/a",
        "gopher://example.org",
        "a.safetensors",
        "http://",
        "http://[::1",
        "http://user:pass@example.org/a",
        "http://example.org:99999/a",
    ],
)
def test_urls_that_are_not_plain_http_are_refused(url: str) -> None:
    with pytest.raises(RefusedAddress):
        check_url(url)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "2130706433",
        "0177.0.0.1",
        "0x7f.1",
        "127.1",
        "0",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "%31%32%37.0.0.1",
        "127。0。0。1",
        "169.254.169.254",
    ],
)
def test_no_spelling_of_a_private_address_is_connected_to(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def connected(*_: Any) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", connected)
    with pytest.raises(Exception) as refused:  # some spellings are no host for requests
        GuardedSession(()).get(f"http://{host}:9/", timeout=3)
    assert not isinstance(refused.value, AssertionError)


def test_the_address_that_was_checked_is_the_one_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [["93.184.216.34"], ["127.0.0.1"]]
    connected = []

    def rebinding(host: str, port: int, **_: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in answers.pop(0)]

    def connect(_: socket.socket, place: Any) -> None:
        connected.append(place)
        raise OSError("no network here")

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    monkeypatch.setattr(socket.socket, "connect", connect)
    with pytest.raises(OSError, match="no connection"):
        GuardedSession(()).get("http://rebinding.example/", timeout=3)
    assert connected == [("93.184.216.34", 80)]
    with pytest.raises(RefusedAddress, match=r"rebinding\.example is not a public address"):
        GuardedSession(()).get("http://rebinding.example/", timeout=3)
    assert len(connected) == 1


def test_one_private_address_among_public_ones_refuses_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    both = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, 80)) for one in ("93.184.216.34", "10.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: both)
    with pytest.raises(RefusedAddress):
        GuardedSession(()).get("http://mixed.example/", timeout=3)


def test_allowed_hosts_are_read_from_a_list() -> None:
    assert parse_allowed(" Models.lan, 10.0.0.5:8080 ,") == ("models.lan", "10.0.0.5:8080")


def test_a_server_that_drips_its_headers_is_cut_off() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]

        def drip() -> None:
            connection, _ = listening.accept()
            with connection, contextlib.suppress(OSError):
                while True:
                    connection.sendall(b"X")
                    time.sleep(0.05)

        threading.Thread(target=drip, daemon=True).start()
        session, began = GuardedSession((f"127.0.0.1:{port}",)), time.monotonic()
        with pytest.raises(requests.RequestException), session.at_most(0.5):
            session.get(f"http://127.0.0.1:{port}/", timeout=30)
        assert time.monotonic() - began < 5
        session.close()
