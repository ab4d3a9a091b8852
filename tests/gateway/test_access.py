"""Who comes in: keys, identities, and headers that a client must not choose."""

import pytest

from tests.gateway.conftest import Services
from tests.gateway.running import Gateway, wait_for
from tests.users.driver import ADMIN, ADMIN_KEY

FORBIDDEN = {"statusCode": 403, "message": "Forbidden"}
UNAUTHORIZED = {"statusCode": 401, "message": "Unauthorized"}
GUARDED = [
    "/users",
    "/roles",
    "/api-keys",
    "/audit",
    "/checkpoints",
    "/endpoints",
    "/inferences",
    "/inference/x",
]


@pytest.mark.parametrize("path", ["/ping", "/auth/token", "/auth/revoke", *GUARDED])
@pytest.mark.parametrize("key", [None, "", "unknown", ADMIN_KEY + "x", ADMIN_KEY.upper(), "{'$ne': 1}"])
def test_without_a_valid_key_everything_is_forbidden(gate: Gateway, path: str, key: str | None) -> None:
    for prefix in ("", "/prod"):
        answer = gate.call("POST", prefix + path, data="no json at all", headers={"x-api-key": key})
        assert (answer.status_code, answer.json()) == (403, FORBIDDEN)


@pytest.mark.parametrize("path", ["/auth/revoke", *GUARDED])
@pytest.mark.parametrize(
    "authorization", [None, "", "Bearer", "Bearer x", "Bearer a.b.c", "Basic YWRtaW46YWRtaW4=", "admin"]
)
def test_a_key_without_a_valid_identity_is_unauthorized(
    gate: Gateway, path: str, authorization: str | None
) -> None:
    answer = gate.call("GET", path, headers={"Authorization": authorization})
    assert (answer.status_code, answer.json()) == (401, UNAUTHORIZED)
    assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_ping_needs_a_key_only(gate: Gateway) -> None:
    for path in ("/ping", "/prod/ping"):
        answer = gate.call("GET", path, headers={"Authorization": None})
        assert (answer.status_code, answer.json()) == (200, {"statusCode": 200, "message": "pong"})


def test_public_keys_documentation_and_the_gateways_health_need_nothing(gate: Gateway) -> None:
    nothing = {"x-api-key": None, "Authorization": None}
    assert gate.call("GET", "/.well-known/jwks.json", headers=nothing).json()["keys"]
    for prefix in ("", "/prod"):
        assert "/users" in gate.call("GET", prefix + "/openapi.json", headers=nothing).json()["paths"]
        page = gate.call("GET", prefix + "/docs", headers=nothing)
        assert page.headers["Content-Type"].startswith("text/html")
    assert gate.call("GET", "/healthz", headers=nothing).json() == {"statusCode": 200, "message": "ok"}


def test_two_keys_in_one_request_are_no_key(gate: Gateway) -> None:
    keys = f"x-api-key: {ADMIN_KEY}\r\nx-api-key: other"
    answer = gate.raw(f"GET /ping HTTP/1.1\r\nHost: x\r\n{keys}\r\nConnection: close\r\n\r\n".encode())
    assert b" 403 " in answer.splitlines()[0]


def test_the_username_header_alone_is_nobody(gate: Gateway) -> None:
    answer = gate.call("GET", "/users", headers={"Authorization": None, "username": ADMIN})
    assert (answer.status_code, answer.json()) == (401, UNAUTHORIZED)


def test_headers_under_internal_names_never_reach_a_service(gate: Gateway) -> None:
    smuggled = {
        "X-Internal-Token": "forged",
        "X-Internal-Anything": "forged",
        "X_Internal_Token": "forged",
        "X-Original-URI": "/forged",
        "X-Original-Method": "FORGED",
        "X-Forwarded-For": "192.0.2.66",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "forged",
        "X-Real-IP": "192.0.2.66",
        "Forwarded": "for=192.0.2.66",
        "username": "forged",
    }
    told = gate.call("GET", "/checkpoints", headers=smuggled).json()["headers"]
    assert "forged" not in str(told).lower()
    assert "192.0.2.66" not in str(told)
    assert told["x-forwarded-for"] == "127.0.0.1"
    assert told["x-forwarded-proto"] == "http"
    assert told["x-internal-token"].count(".") == 2


def test_no_service_sees_a_clients_credentials(gate: Gateway) -> None:
    told = gate.call("GET", "/inferences").json()["headers"]
    assert "x-api-key" not in told
    assert "authorization" not in told
    assert ADMIN_KEY not in str(told)
    assert gate.token not in str(told)


def test_an_internal_token_from_outside_opens_nothing(gate: Gateway) -> None:
    token = gate.call("GET", "/checkpoints").json()["headers"]["x-internal-token"]
    for headers in (
        {"x-api-key": None, "Authorization": None, "X-Internal-Token": token},
        {"Authorization": None, "X-Internal-Token": token},
        {"Authorization": f"Bearer {token}"},
    ):
        assert gate.call("GET", "/users", headers=headers).status_code in {401, 403}


def test_the_internal_token_is_never_returned(gate: Gateway) -> None:
    for path in ("/ping", "/users", "/checkpoints", "/checkpoints/status/500"):
        assert "X-Internal-Token" not in gate.call("GET", path).headers


@pytest.mark.parametrize(
    "path",
    [
        "/internal/jwks.json",
        "/internal/authenticate",
        "//internal/jwks.json",
        "/./internal/jwks.json",
        "/%69nternal/jwks.json",
        "/%2569nternal/jwks.json",
        "/users/../internal/jwks.json",
        "/users/%2e%2e/internal/jwks.json",
        "/users/%2e%2e%2finternal/jwks.json",
        "/users/..%5cinternal/jwks.json",
        "/users/..;/internal/jwks.json",
        "/users%2f..%2finternal/jwks.json",
        "/prod/internal/jwks.json",
        "/prod//internal/jwks.json",
        "/prod/../internal/jwks.json",
        "/prod/users/../../internal/jwks.json",
        "/checkpoint/../internal/jwks.json",
        "/inference/../../internal/jwks.json",
        "/users/%0a/../internal/jwks.json",
        "/INTERNAL/jwks.json",
        "http://gateway/internal/jwks.json",
        "/_who",
        "//_who",
        "/%5fwho",
        "/prod/_who",
        "/prod//_who",
        "/users/../_who",
        "/_which_key",
        "/prod/../_which_key",
        "/_failure",
        "/healthz/../_failure",
    ],
)
def test_nothing_internal_is_reachable_however_it_is_spelled(gate: Gateway, path: str) -> None:
    status, body = gate.path_as_it_is(path)
    assert status in {400, 404}
    assert "kty" not in body
    assert f'"statusCode":{status}' in body


def test_a_deleted_user_is_out_within_ten_seconds(gate: Gateway, services: Services) -> None:
    role = {"role_name": "passing", "permissions": ["inference:list"], "creator": ADMIN}
    assert gate.call("POST", "/roles", json=role).status_code == 201
    user = {"username": "passing", "password": "x", "roles": ["passing"], "creator": ADMIN}
    assert gate.call("POST", "/users", json=user).status_code == 201
    token = gate.sign_in(username="passing", password="x")["access_token"]
    headers = {"Authorization": f"Bearer {token}"}
    assert gate.call("GET", "/inferences", headers=headers).status_code == 200
    assert gate.call("DELETE", "/users", json={"user_name_list": ["passing"]}).status_code == 204
    wait_for(lambda: gate.call("GET", "/inferences", headers=headers).status_code == 401, 10)


def test_a_user_with_as_many_and_as_long_roles_as_may_be_is_let_through(gate: Gateway) -> None:
    roles = [f"{number:02}" + "部" * 62 for number in range(50)]
    for role in roles:
        body = {"role_name": role, "permissions": ["inference:list"], "creator": ADMIN}
        assert gate.call("POST", "/roles", json=body).status_code == 201
    user = {"username": "many roles", "password": "x", "roles": roles, "creator": ADMIN}
    assert gate.call("POST", "/users", json=user).status_code == 201
    token = gate.sign_in(username="many roles", password="x")["access_token"]
    headers = {"Authorization": f"Bearer {token}"}
    assert gate.call("GET", "/users", headers=headers).json()["data"]["users"][0]["roles"] == roles
    assert gate.call("GET", "/checkpoints", headers=headers).status_code == 200
