"""Two requests in one, names spelled in two ways: no service sees more than the gateway has judged."""

import socket

import pytest

from tests.gateway.conftest import Services
from tests.gateway.running import HOST, Gateway
from tests.users.driver import ADMIN_KEY

HIDDEN = b"GET /internal/jwks.json HTTP/1.1\r\nHost: x\r\nX-Internal-Token: forged\r\n\r\n"


def with_credentials(gate: Gateway, *lines: str, method: str = "POST", path: str = "/checkpoints") -> bytes:
    head = [
        f"{method} {path} HTTP/1.1",
        "Host: x",
        f"x-api-key: {ADMIN_KEY}",
        f"Authorization: Bearer {gate.token}",
        *lines,
    ]
    return "\r\n".join(head).encode() + b"\r\n\r\n"


@pytest.mark.parametrize(
    "lines",
    [
        ("Content-Length: 5", "Transfer-Encoding: chunked"),
        ("Transfer-Encoding: chunked", "Content-Length: 500"),
        ("Content-Length: 5", "Content-Length: 500"),
        ("Content-Length: 5, 500",),
        ("Content-Length: +5",),
        ("Content-Length: 0x5",),
        ("Content-Length: 5 5",),
        ("Transfer-Encoding: chunked, identity",),
        ("Transfer-Encoding: identity, chunked",),
        ("Transfer-Encoding: xchunked",),
        ("Transfer-Encoding: chunked", "Transfer-Encoding: identity"),
        ("Transfer-Encoding: \x0bchunked",),
        (" Transfer-Encoding: chunked",),
        ("Transfer-Encoding\x00: chunked",),
    ],
    ids=repr,
)
def test_a_request_of_two_lengths_is_refused_and_the_connection_ends(
    gate: Gateway, lines: tuple[str, ...]
) -> None:
    with socket.create_connection((HOST, gate.port), timeout=10) as connection:
        connection.sendall(with_credentials(gate, *lines) + b"0\r\n\r\n" + HIDDEN)
        came = b""
        while piece := connection.recv(65536):
            came += piece
    assert came.count(b"HTTP/1.1 ") == 1
    assert came.split()[1] in {b"400", b"501"}
    assert b'{"statusCode":' in came
    assert b"kty" not in came


@pytest.mark.parametrize(
    "lines",
    [("Content_Length: 0", "Content-Length: 77"), ("Transfer_Encoding: chunked", "Content-Length: 77")],
    ids=repr,
)
def test_a_length_that_is_spelled_with_an_underscore_is_none(gate: Gateway, lines: tuple[str, ...]) -> None:
    body = HIDDEN.ljust(77, b" ")
    answer = gate.raw(with_credentials(gate, *lines, "Connection: close") + body).decode()
    assert answer.startswith("HTTP/1.1 200")
    assert '"bytes": 77' in answer
    assert answer.count("HTTP/1.1 200") == 1
    assert "transfer" not in answer.lower()


def test_a_chunked_body_reaches_the_service_with_one_length(gate: Gateway) -> None:
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (HIDDEN, b"x" * 10)) + b"0\r\n\r\n"
    answer = gate.raw(
        with_credentials(gate, "Transfer-Encoding: chunked", "Connection: close") + chunks
    ).decode()
    assert f'"bytes": {len(HIDDEN) + 10}' in answer
    assert '"content-length"' in answer
    assert "transfer-encoding" not in answer.lower()


@pytest.mark.parametrize(
    "names",
    [
        ("X-Internal-Token", "x-internal-token", "X_Internal_Token", "X-Internal_Token", "X_INTERNAL-TOKEN"),
        ("X-Forwarded-For", "X_Forwarded_For", "x-forwarded_for", "X-Forwarded-For"),
        ("X-Api-Key", "x_api_key"),
        ("Authorization_", "_Authorization", "Proxy-Authorization", "X-Authorization", "Cookie"),
        ("Username", "User_name", "SCRIPT_NAME", "Script-Name", "X-Script-Name", "X-Http-Method-Override"),
        (
            "X-Original-Uri",
            "X-Original-Url",
            "X-Rewrite-Url",
            "X-Original-Method",
            "X-Remote-User",
            "Remote-User",
        ),
    ],
    ids=lambda names: names[0],
)
def test_a_header_however_it_is_spelled_or_repeated_reaches_no_service(
    gate: Gateway, names: tuple[str, ...]
) -> None:
    lines = [f"{name}: forged" for name in names if name != "X-Api-Key"]
    answer = gate.raw(with_credentials(gate, *lines, "Connection: close", method="GET")).decode()
    assert answer.startswith("HTTP/1.1 200")
    assert "forged" not in answer


@pytest.mark.parametrize("name", ["X_Api_Key", "X-Api_Key", "x_api-key"])
def test_a_key_under_another_spelling_is_no_key(gate: Gateway, name: str) -> None:
    request = f"GET /ping HTTP/1.1\r\nHost: x\r\n{name}: {ADMIN_KEY}\r\nConnection: close\r\n\r\n"
    assert gate.raw(request.encode()).startswith(b"HTTP/1.1 403")


@pytest.mark.parametrize(
    "sign", [b"\r", b"\n", b"\x00", b"\r\n X-Internal-Token: forged", b"\nX-Internal-Token: forged"], ids=repr
)
def test_a_line_break_inside_a_header_makes_no_second_one(gate: Gateway, sign: bytes) -> None:
    for name in (b"X-Request-Id", b"User-Agent", b"Idempotency-Key", b"If-Match", b"Accept"):
        request = with_credentials(gate, "Connection: close", method="GET")
        answer = gate.raw(request.replace(b"Host: x\r\n", b"Host: x\r\n" + name + b": a" + sign + b"b\r\n"))
        assert b'x-internal-token": "forged' not in answer.lower()
        assert answer.split()[1] in {b"200", b"400"}


def test_a_question_in_pieces_or_two_at_once_is_answered_by_users(gate: Gateway, services: Services) -> None:
    """The short way takes whole questions alone; the others go through gunicorn."""
    headers = f"Host: x\r\nx-api-key: {ADMIN_KEY}\r\nAuthorization: Bearer {gate.token}\r\n\r\n"
    question = f"GET /internal/authenticate HTTP/1.1\r\n{headers}".encode()

    def answers(count: int) -> bytes:
        came = b""
        while came.count(b"\r\n\r\n") < count:
            came += connection.recv(65536)
        return came

    with socket.create_connection((HOST, services.users_port), timeout=10) as connection:
        for _ in range(3):
            connection.sendall(question)
            assert answers(1).startswith(b"HTTP/1.1 200")
        connection.sendall(question[:50])
        connection.sendall(question[50:])
        assert answers(1).startswith(b"HTTP/1.1 200")
        connection.sendall(question + question)
        assert answers(2).count(b"HTTP/1.1 200") == 2
        connection.sendall(question)
        assert answers(1).count(b"X-Internal-Token: ") == 1
