"""Where each path leads."""

import re
from pathlib import Path

import pytest

from tests.gateway.running import Gateway

HERE = Path(__file__).resolve().parents[2] / "gateway"
NOT_FOUND = {"statusCode": 404, "message": "Not Found"}

TO_STAND_INS = {
    "/checkpoints": ("checkpoints", "/checkpoints"),
    "/checkpoints/x/uploads?a=1": ("checkpoints", "/checkpoints/x/uploads?a=1"),
    "/checkpoint": ("checkpoints", "/checkpoints"),
    "/checkpoint/x?a=1": ("checkpoints", "/checkpoints/x?a=1"),
    "/endpoints/x/instances": ("endpoints", "/endpoints/x/instances"),
    "/endpoint": ("endpoints", "/endpoints"),
    "/inferences/x/start": ("inference", "/inferences/x/start"),
    "/webhooks": ("inference", "/webhooks"),
    "/webhooks/x/deliveries": ("inference", "/webhooks/x/deliveries"),
    "/inferences/x/events": ("inference", "/inferences/x/events"),
    "/inference/x/events": ("inference", "/inferences/x/events"),
    "/inferences/get-lora-list": ("inference", "/inferences/get-lora-list"),
    "/inference/x": ("inference", "/inferences/x"),
    "/inference/x/start": ("inference", "/inferences/x/start"),
    "/inference": ("inference", "/inferences"),
    "/inference/get-texual-inversion-list": ("inference", "/inference/get-texual-inversion-list"),
    "/inference/get-controlnet-model-list": ("inference", "/inference/get-controlnet-model-list"),
    "/inference/generate-s3-presigned-url-for-uploading?key=a%2Fb": (
        "inference",
        "/inference/generate-s3-presigned-url-for-uploading?key=a%2Fb",
    ),
    "/inference/run-model-merge": ("training", "/inference/run-model-merge"),
    "/models/x": ("training", "/models/x"),
    "/model": ("training", "/models"),
    "/trainings/x/start": ("training", "/trainings/x/start"),
    "/train": ("training", "/trainings"),
    "/trains": ("training", "/trainings"),
    "/trains/x/start": ("training", "/trainings/x/start"),
    "/training/x": ("training", "/trainings/x"),
    "/datasets/x/items": ("datasets", "/datasets/x/items"),
    "/dataset": ("datasets", "/datasets"),
    "/dataset/x/data?a=1": ("datasets", "/datasets/x/data?a=1"),
    "/violet%20stars/data": ("datasets", "/datasets/violet%20stars/data"),
    "/checkpoints/a%20b%3Fc": ("checkpoints", "/checkpoints/a%20b%3Fc"),
    "/checkpoints//x/../y": ("checkpoints", "/checkpoints/y"),
}


@pytest.mark.parametrize("prefix", ["", "/prod"])
@pytest.mark.parametrize(("path", "arrives"), TO_STAND_INS.items(), ids=TO_STAND_INS)
def test_a_path_arrives_at_its_service(
    gate: Gateway, prefix: str, path: str, arrives: tuple[str, str]
) -> None:
    told = gate.call("GET", prefix + path).json()
    assert (told["name"], told["path"]) == arrives


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
def test_method_and_body_arrive(gate: Gateway, method: str) -> None:
    told = gate.call(method, "/checkpoints", data=b"x" * 500_000).json()
    assert (told["method"], told["bytes"]) == (method, 500_000)


@pytest.mark.parametrize(
    "path",
    [
        *("/", "/prod", "/prod/", "/usersx", "/prodx/users", "/prod/prod/users", "/xusers", "/users.json"),
        *("/checkpointsx", "/inferencex", "/ping/x", "/pings", "/favicon.ico", "/Users", "/.well-known/x"),
        *("/metrics", "/prod/metrics", "/metrics/", "/users/../metrics", "//metrics", "/_metrics"),
    ],
)
def test_every_other_path_is_not_found(gate: Gateway, path: str) -> None:
    answer = gate.call("GET", path)
    assert (answer.status_code, answer.json()) == (404, NOT_FOUND)


def test_every_location_of_the_gateway_is_in_these_tests() -> None:
    text = (HERE / "locations.conf.template").read_text()
    named = set(re.findall(r"^location (?:=|~) \^?/([a-z.-]+|\[\^/\]\+/data)", text, re.MULTILINE))
    assert named == {
        *(
            "healthz",
            "openapi.json",
            "docs",
            "ping",
            "auth",
            ".well-known",
            "users",
            "roles",
            "api-keys",
            "audit",
        ),
        *("checkpoints", "checkpoint", "endpoints", "endpoint", "inferences", "inference", "webhooks"),
        *("models", "model", "trainings", "train"),
        *("datasets", "dataset", "[^/]+/data"),
    }


def test_every_location_to_a_service_says_who_may_come_in() -> None:
    text = (HERE / "locations.conf.template").read_text()
    blocks = re.findall(r"^location \S+ (\S+) \{\n(.*?)^\}", text, re.MULTILINE | re.DOTALL)
    open_ones = [path for path, block in blocks if "proxy_pass" in block and "include require_" not in block]
    assert sorted(open_ones) == [
        *("/.well-known/jwks.json", "/_which_key", "/_which_key_again", "/_who", "/_who_again"),
        *("/docs", "/openapi.json"),
    ]
