"""Whatever JSON is sent to any route, the answer is in the envelope and no failure of ours."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.users.driver import ADMIN_KEY, Driver

NAMES = [
    "username",
    "password",
    "roles",
    "creator",
    "permissions",
    "role_name",
    "role_name_list",
    "old",
    "new",
]
NAMES += ["user_name_list", "name", "scopes", "expires_at", "rate_limit", "api_key_id_list", "refresh_token"]
PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
PLAIN |= st.sampled_from(
    ["inference:list", "user:list", "delegate", "not_applicable", "$where", "nul\0", "\ud800"]
)
VALUES = st.recursive(
    PLAIN,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
BODIES = st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=7) | VALUES
ROUTES = [
    ("POST", "/auth/token"),
    ("POST", "/auth/revoke"),
    ("POST", "/roles"),
    ("DELETE", "/roles"),
    ("POST", "/users"),
    ("DELETE", "/users"),
    ("PUT", "/users/me/password"),
    ("POST", "/users/me/api-keys"),
    ("DELETE", "/users/me/api-keys"),
    ("POST", "/api-keys"),
    ("DELETE", "/api-keys"),
]
QUERIES = ["limit", "last_evaluated_key", "username", "role", "actor", "since", "until", "name", "outcome"]
CALM = settings(
    max_examples=15, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture()
def internal_token(users: Driver) -> dict[str, str]:
    headers = {"x-api-key": ADMIN_KEY, "Authorization": f"Bearer {users.admin.token}"}
    return {"X-Internal-Token": users.ask(headers).headers["X-Internal-Token"]}


def check(answer: Any) -> None:
    assert answer.status_code < 500, answer.text
    if answer.status_code != 204:
        assert answer.get_json()["statusCode"] == answer.status_code


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_any_body_is_answered(users: Driver, internal_token: dict[str, str], method: str, path: str) -> None:
    @CALM
    @given(BODIES)
    def send(body: Any) -> None:
        check(users.client.open(path, method=method, data=json.dumps(body), headers=internal_token))

    send()


@pytest.mark.parametrize("path", ["/users", "/roles", "/api-keys", "/users/me/api-keys", "/audit"])
def test_any_query_is_answered(users: Driver, internal_token: dict[str, str], path: str) -> None:
    texts = st.text(max_size=20).filter(lambda text: text.isprintable()) | st.integers().map(str)

    @CALM
    @given(st.dictionaries(st.sampled_from(QUERIES), texts, max_size=4))
    def send(query: dict[str, str]) -> None:
        check(users.client.get(path, query_string=query, headers=internal_token))

    send()
