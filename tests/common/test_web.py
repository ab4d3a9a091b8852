"""What every service answers alike."""

from typing import Any

import pytest
from flask import Flask
from marshmallow import Schema, fields
from pymongo.errors import ServerSelectionTimeoutError

from services.common.fields import Body, Text
from services.common.identity import Authentication, open_to_all, requires, undeclared_routes
from services.common.web import ServiceBlueprint, make_web_app
from tests.conftest import Keys


class Wanted(Body):
    name = Text(required=True)


class Made(Schema):
    name = fields.String()


@pytest.fixture()
def app(keys: Keys) -> Flask:
    blueprint = ServiceBlueprint("things", __name__)

    @blueprint.route("/things", methods=["POST"])
    @blueprint.arguments(Wanted)
    @blueprint.answers(201, Made, "made")
    @requires("role:create")
    def make(body: dict[str, Any]) -> dict[str, Any]:
        """Make a thing."""
        if body["name"] == "crash":
            raise RuntimeError("secret detail")
        if body["name"] == "away":
            raise ServerSelectionTimeoutError("127.0.0.1:27017")
        return body | {"hidden": 1}

    @blueprint.route("/forgotten")
    def forgotten() -> str:
        return "nobody said who may see this"

    @blueprint.route("/odd")
    @open_to_all
    def odd() -> dict[str, float]:
        return {"largest": float("inf")}

    def broken() -> None:
        raise OSError("no")

    authentication = Authentication(keys, keys.service_secret)
    return make_web_app("things", authentication, [blueprint], ready={"disk": broken})


def post(app: Flask, keys: Keys, body: str, **user: Any) -> Any:
    return app.test_client().post("/things", data=body, headers=keys.user(**user))


def test_answers_come_in_the_envelope(app: Flask, keys: Keys) -> None:
    response = post(app, keys, '{"name": "a"}')
    assert response.status_code == 201
    assert response.json == {"statusCode": 201, "message": "made", "data": {"name": "a"}}


@pytest.mark.parametrize(
    "body",
    [
        "{",
        "[]",
        '"x"',
        "\xff",
        "[" * 100_000,
        '{"a\\u0000": 1}',
        '{"name": "\\ud800"}',
        '{"n": 1' + "0" * 30 + "}",
    ],
)
def test_a_body_that_is_no_storable_object_is_refused(app: Flask, keys: Keys, body: str) -> None:
    response = post(app, keys, body)
    assert response.json == {"statusCode": 400, "message": "Invalid request body"}


def test_credentials_come_first_then_shape_then_rights(app: Flask, keys: Keys) -> None:
    assert app.test_client().post("/things", data="{").status_code == 401
    assert post(app, keys, "{", permissions=()).status_code == 400
    assert post(app, keys, '{"name": "a"}', permissions=()).status_code == 403


def test_an_unexpected_failure_says_nothing_of_itself(app: Flask, keys: Keys) -> None:
    response = post(app, keys, '{"name": "crash"}')
    assert response.json == {"statusCode": 500, "message": "Internal Server Error"}


def test_a_part_that_is_away_is_a_503(app: Flask, keys: Keys) -> None:
    response = post(app, keys, '{"name": "away"}')
    assert (response.status_code, response.headers["Retry-After"]) == (503, "2")
    assert "27017" not in response.text


def test_unknown_routes_and_methods_answer_in_the_envelope(app: Flask) -> None:
    client = app.test_client()
    assert client.get("/nowhere").json == {"statusCode": 404, "message": "Not Found"}
    wrong = client.get("/things")
    assert wrong.json == {"statusCode": 405, "message": "Method Not Allowed"}
    assert "POST" in wrong.headers["Allow"]


def test_a_route_that_declares_nothing_is_closed(app: Flask, keys: Keys) -> None:
    assert list(undeclared_routes(app)) == ["/forgotten"]
    assert app.test_client().get("/forgotten", headers=keys.user()).status_code == 403


def test_numbers_that_json_does_not_have_are_never_sent(app: Flask) -> None:
    assert app.test_client().get("/odd").json == {"largest": None}


def test_request_ids_are_kept_when_they_are_harmless(app: Flask) -> None:
    client = app.test_client()
    assert client.get("/healthz", headers={"X-Request-Id": "abc-1"}).headers["X-Request-Id"] == "abc-1"
    made = client.get("/healthz", headers={"X-Request-Id": "a b {evil}"}).headers["X-Request-Id"]
    assert len(made) == 32


def test_readiness_names_the_part_that_does_not_answer(app: Flask) -> None:
    response = app.test_client().get("/readyz")
    assert (response.status_code, response.json["errors"]) == (503, {"disk": "OSError"})


def test_the_openapi_document_names_the_routes(app: Flask) -> None:
    document = app.test_client().get("/internal/openapi.json").json
    assert document["paths"]["/things"]["post"]["summary"] == "Make a thing."
