"""What the gateway itself says: failures in the envelope, request ids, CORS, limits."""

import json
import re
import socket
import time

import pytest

from tests.gateway.conftest import Services
from tests.gateway.running import HOST, Gateway, free_port, gateway
from tests.users.driver import ADMIN_KEY

ORIGIN = "https://app.example.org"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 429, 500, 502, 503])
def test_what_a_service_answers_passes_unchanged(gate: Gateway, status: int) -> None:
    answer = gate.call("GET", f"/checkpoints/status/{status}")
    assert answer.status_code == status
    assert answer.json()["name"] == "checkpoints"


def test_a_service_that_is_down_is_told_in_the_envelope_with_retry_after(
    services: Services, gate: Gateway, tmp_path
) -> None:
    nobody = f"server {HOST}:{free_port()};"
    with gateway(tmp_path, **(services.upstreams | {"CHECKPOINTS_UPSTREAM": nobody})) as broken:
        broken.token = gate.token
        answer = broken.call("GET", "/checkpoints")
    assert answer.status_code == 502
    assert answer.json() == {"statusCode": 502, "message": "Bad Gateway"}
    assert answer.headers["Retry-After"] == "2"


@pytest.mark.parametrize("path", ["/ping", "/checkpoints", "/users"])
def test_while_users_is_down_nobody_comes_in(services: Services, gate: Gateway, tmp_path, path: str) -> None:
    nobody = f"server {HOST}:{free_port()};"
    with gateway(tmp_path, **(services.upstreams | {"USERS_UPSTREAM": nobody})) as broken:
        broken.token = gate.token
        answer = broken.call("GET", path)
    assert answer.status_code == 503
    assert answer.json()["statusCode"] == 503
    assert answer.headers["Retry-After"] == "2"


def test_a_service_that_takes_too_long_is_a_gateway_timeout(
    services: Services, gate: Gateway, tmp_path
) -> None:
    with socket.create_server((HOST, 0)) as silent:
        slow = f"server {HOST}:{silent.getsockname()[1]};"
        settings = services.upstreams | {"ENDPOINTS_UPSTREAM": slow, "GATEWAY_TIMEOUT_SECONDS": "1"}
        with gateway(tmp_path, **settings) as impatient:
            impatient.token = gate.token
            answer = impatient.call("POST", "/endpoints")
    assert (answer.status_code, answer.json()["statusCode"]) == (504, 504)


def test_a_body_of_50_mb_is_refused_before_it_is_read(gate: Gateway) -> None:
    head = (
        f"POST /users HTTP/1.1\r\nHost: x\r\nx-api-key: {ADMIN_KEY}\r\n"
        f"Authorization: Bearer {gate.token}\r\nContent-Length: 52428800\r\nConnection: close\r\n\r\n"
    )
    answer = gate.raw(head.encode())
    assert b" 413 " in answer.splitlines()[0]
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["statusCode"] == 413


def test_a_chunked_body_of_50_mb_is_refused_too(gate: Gateway) -> None:
    chunk = b"x" * 2**20

    def pieces():
        for _ in range(50):
            yield chunk

    try:
        answer = gate.call("POST", "/users", data=pieces())
    except OSError:  # the gateway closes while we still send
        return
    assert answer.status_code == 413


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (b"GET /users HTTP/1.1\r\nHost: x\r\nX-Long: " + b"x" * 20_000 + b"\r\n\r\n", 431),
        (b"GET /users HTTP/1.1\r\n\r\n", 400),
        (b"GARBAGE\r\n\r\n", 400),
        (b"GET /users%00 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"TRACE /users HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        (b"GET /users HTTP/2.0\r\nHost: x\r\n\r\n", 505),
        (b"POST /users HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n", 501),
        (b"POST /users HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"POST /users HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
        (b"GET /users HTTP/1.1\r\nHost: x\r\nAuthorization: a\r\nAuthorization: b\r\n\r\n", 400),
    ],
    ids=lambda value: str(value[-40:]) if isinstance(value, bytes) else str(value),
)
def test_broken_requests_are_answered_in_the_envelope(
    gate: Gateway, request_line: bytes, status: int
) -> None:
    closing = request_line.replace(b"Host: x\r\n", b"Host: x\r\nConnection: close\r\n")
    head, _, body = gate.raw(closing).partition(b"\r\n\r\n")
    assert int(head.split()[1]) == status
    assert json.loads(body)["statusCode"] == status
    assert b"application/json" in head
    assert (b"\r\nAllow: " in head) == (status == 405)


@pytest.mark.parametrize(
    "begun",
    [
        b"GET /users HTT",
        b"GET /users HTTP/1.1\r\nHost: x\r\nX-A: b\r\n",
        b"POST /users HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{",
    ],
)
def test_a_client_that_stops_sending_is_hung_up_on(gate: Gateway, begun: bytes) -> None:
    began = time.monotonic()
    begun = begun.replace(
        b"Host: x\r\n",
        f"Host: x\r\nx-api-key: {ADMIN_KEY}\r\nAuthorization: Bearer {gate.token}\r\n".encode(),
    )
    gate.raw(begun, seconds=8)
    assert time.monotonic() - began < 6


def test_a_client_that_drips_its_header_is_hung_up_on(gate: Gateway) -> None:
    began = time.monotonic()
    with socket.create_connection((HOST, gate.port), timeout=8) as connection:
        try:
            for sign in b"GET /ping HTTP/1.1\r\nX-Slow: " + b"x" * 60:
                connection.sendall(bytes([sign]))
                time.sleep(0.05)
            assert connection.recv(100) == b""
        except (BrokenPipeError, ConnectionResetError):
            pass
    assert time.monotonic() - began < 6


def test_a_well_formed_request_id_is_kept_and_handed_on(gate: Gateway) -> None:
    answer = gate.call("GET", "/checkpoints", headers={"X-Request-Id": "my-id_1.2"})
    assert answer.headers["X-Request-Id"] == "my-id_1.2"
    assert answer.json()["headers"]["x-request-id"] == "my-id_1.2"


@pytest.mark.parametrize("offered", [None, "", "two words", "x" * 65, "a;b", "ä".encode().decode("latin-1")])
def test_any_other_request_id_is_replaced(gate: Gateway, offered: str | None) -> None:
    answer = gate.call("GET", "/checkpoints", headers={"X-Request-Id": offered})
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["X-Request-Id"])
    assert answer.json()["headers"]["x-request-id"] == answer.headers["X-Request-Id"]


def test_refusals_carry_a_request_id_too(gate: Gateway) -> None:
    answer = gate.call("GET", "/users", headers={"x-api-key": None, "X-Request-Id": "mine"})
    assert answer.headers["X-Request-Id"] == "mine"


def test_a_listed_origin_may_ask_before_it_sends_credentials(gate: Gateway) -> None:
    nothing = {"x-api-key": None, "Authorization": None, "Origin": ORIGIN}
    answer = gate.call("OPTIONS", "/prod/inferences", headers=nothing)
    assert answer.status_code == 204
    assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert "DELETE" in answer.headers["Access-Control-Allow-Methods"]
    assert "X-Api-Key" in answer.headers["Access-Control-Allow-Headers"]
    assert "Access-Control-Allow-Credentials" not in answer.headers


@pytest.mark.parametrize(
    "origin",
    [
        *("https://evil.example", "http://app.example.org", "https://app.example.org.evil.example", "null"),
        *("https://app.example.org:444", "https://xapp.example.org", "https://app-example.org", ""),
    ],
)
def test_an_unlisted_origin_gets_no_permission(gate: Gateway, origin: str) -> None:
    for method in ("OPTIONS", "GET"):
        answer = gate.call(method, "/users", headers={"Origin": origin})
        assert [name for name in answer.headers if name.startswith("Access-Control")] == []
        assert answer.headers["Vary"] == "Origin"


def test_a_listed_origin_can_read_answers_and_refusals(gate: Gateway) -> None:
    for headers in ({}, {"x-api-key": None}):
        answer = gate.call("GET", "/users", headers={"Origin": ORIGIN} | headers)
        assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN


def test_options_on_an_unknown_path_is_not_found(gate: Gateway) -> None:
    assert gate.call("OPTIONS", "/internal/jwks.json", headers={"Origin": ORIGIN}).status_code == 404


def test_nothing_secret_is_logged(gate: Gateway, services: Services) -> None:
    issued = gate.sign_in()
    gate.call("GET", f"/checkpoints?secret={ADMIN_KEY}")
    logs = gate.log.read_text() + services.users_log.read_text()
    assert "/checkpoints" in logs
    for secret in (ADMIN_KEY, gate.token, issued["access_token"], issued["refresh_token"]):
        assert secret not in logs


def test_what_the_gateway_lets_through_no_service_finds_too_long(gate: Gateway) -> None:
    """gunicorn would answer a long request line with a page of its own."""
    answer = gate.call("GET", f"/users?username={'x' * 12_000}")
    assert (answer.status_code, answer.json()["statusCode"]) == (400, 400)
    answer = gate.call("GET", "/users", headers={"X-Request-Id": "x" * 12_000})
    assert answer.status_code == 200
