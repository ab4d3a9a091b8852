"""What a stranger gets at the gateway: nothing, in the envelope."""

from typing import Any

import pytest
import requests

from tests.running import Running

ROUTES = [
    ("GET", "/ping"),
    ("POST", "/auth/token"),
    ("GET", "/users"),
    ("GET", "/roles"),
    ("GET", "/checkpoints"),
    ("POST", "/checkpoints"),
    ("GET", "/endpoints"),
    ("POST", "/endpoints"),
    ("GET", "/inferences"),
    ("POST", "/inferences"),
    ("GET", "/inferences/x"),
    ("PUT", "/inferences/x/start"),
    ("DELETE", "/inferences"),
    ("GET", "/inferences/x/events"),
    ("POST", "/inference/run-model-merge"),
    ("GET", "/inference/generate-s3-presigned-url-for-uploading"),
    ("POST", "/webhooks"),
    ("GET", "/models"),
    ("POST", "/models"),
    ("POST", "/trainings"),
    ("PUT", "/trainings/x/start"),
    ("POST", "/datasets"),
    ("GET", "/datasets/x"),
    ("GET", "/audit"),
    ("POST", "/api-keys"),
    ("PUT", "/users/me/password"),
]
FORBIDDEN = {"statusCode": 403, "message": "Forbidden"}
UNAUTHORIZED = {"statusCode": 401, "message": "Unauthorized"}


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize("key", [None, "wrong", "", "x" * 5000])
def test_without_a_good_key_nothing_is_looked_at(
    running: Running, method: str, path: str, key: str | None
) -> None:
    headers = {} if key is None else {"x-api-key": key}
    answer = running.ask(method, path, "{", **headers)
    assert (answer.status_code, answer.json()) == (403, FORBIDDEN)


@pytest.mark.parametrize(("method", "path"), ROUTES[2:])
@pytest.mark.parametrize("token", [None, "Bearer x", "Bearer a.b.c", "Basic YTpi", "Bearer " + "x" * 3000])
def test_without_a_good_token_nothing_is_done(
    running: Running, method: str, path: str, token: str | None
) -> None:
    headers = {"x-api-key": running.target.api_key} | ({} if token is None else {"Authorization": token})
    answer = running.ask(method, path, "{", **headers)
    assert (answer.status_code, answer.json()) == (401, UNAUTHORIZED)


@pytest.mark.parametrize(
    "path",
    [
        "/internal/claim",
        "//internal/claim",
        "/%69nternal/claim",
        "/prod/internal/claim",
        "/inferences/../internal/claim",
        "/users/internal/authenticate",
        "/nowhere",
        "/inferencesx",
    ],
)
def test_what_is_internal_is_not_there(running: Running, path: str) -> None:
    answer = running.ask("POST", path, {}, **running.signed_in())
    assert answer.json()["statusCode"] == answer.status_code == 404


@pytest.mark.parametrize("name", ["X-Internal-Token", "x-internal-token"])
def test_an_internal_token_of_a_client_is_dropped(running: Running, name: str) -> None:
    forged: dict[str, Any] = {"x-api-key": running.target.api_key, name: "forged"}
    assert running.ask("GET", "/inferences", **forged).status_code == 401


def test_a_service_is_closed_to_calls_round_the_gateway(running: Running) -> None:
    direct = running.stack.record().settings.url("inference")
    answer = requests.get(f"{direct}/inferences", headers=running.signed_in(), timeout=10)
    assert answer.status_code == 401


DEEP = '{"params": ' * 5000 + "{}" + "}" * 5000


@pytest.mark.parametrize("body", ["{", "[]", '"x"', "\x00", '{"user_id": 1', DEEP, "[" * 100_000])
@pytest.mark.parametrize(
    "path",
    [
        *("/inferences", "/checkpoints", "/endpoints", "/roles", "/users"),
        *("/models", "/trainings", "/datasets", "/webhooks", "/inference/run-model-merge", "/api-keys"),
    ],
)
def test_a_body_that_is_no_json_object_is_told(running: Running, path: str, body: str) -> None:
    answer = running.ask("POST", path, body, **running.signed_in())
    assert (answer.status_code, answer.json()["message"]) == (400, "Invalid request body")
