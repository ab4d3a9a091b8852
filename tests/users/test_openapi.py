"""The description of the whole API."""

import threading
from collections.abc import Iterator

import pytest
from flask import Flask
from openapi_spec_validator import validate
from werkzeug.serving import make_server

from services.users.openapi import WholeApi, assemble
from tests.users.driver import Driver, users_config


def operations(document: dict) -> set[tuple[str, str]]:
    return {
        (method, path)
        for path, item in document["paths"].items()
        for method in item
        if method != "parameters"
    }


def document_of(users: Driver) -> dict:
    found: dict = users.client.get("/openapi.json").get_json()
    return found


def test_the_document_is_valid_and_lists_every_public_route(users: Driver) -> None:
    document = document_of(users)
    validate(document)
    unlisted = ("/internal", "/healthz", "/readyz", "/openapi.json", "/docs")
    public = {
        (method.lower(), str(rule))
        for rule in users.app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if not str(rule).startswith(unlisted)
    }
    assert operations(document) == public


def test_the_document_says_what_each_route_needs_to_know_of_the_caller(users: Driver) -> None:
    paths = document_of(users)["paths"]
    assert paths["/ping"]["get"]["security"] == [{"key": []}]
    assert paths["/.well-known/jwks.json"]["get"]["security"] == []
    assert "security" not in paths["/users"]["get"]  # the default: key and identity


@pytest.fixture()
def another_service() -> Iterator[str]:
    """A service with one public route and a component that users has too."""
    app = Flask("another")

    @app.get("/internal/openapi.json")
    def document() -> dict:
        schema = {"$ref": "#/components/schemas/Error"}
        answer = {"description": "x", "content": {"application/json": {"schema": schema}}}
        operation = {"responses": {"200": answer}}
        return {
            "paths": {"/checkpoints": {"get": operation}, "/internal/resolve": {"get": operation}},
            "components": {"schemas": {"Error": {"type": "object"}, "User": {"type": "string"}}},
        }

    server = make_server("127.0.0.1", 0, app, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_other_services_are_in_it_and_those_that_are_down_are_left_out(
    environment, another_service: str
) -> None:
    users = Driver.of(users_config(environment(CHECKPOINTS_URL=another_service)))
    document = document_of(users)
    validate(document)
    assert ("get", "/checkpoints") in operations(document)
    assert ("post", "/users") in operations(document)
    assert not [path for path in document["paths"] if path.startswith("/internal")]
    assert document["components"]["schemas"]["checkpoints.User"] == {"type": "string"}
    assert document["components"]["schemas"]["users.User"]["type"] == "object"


def test_failures_are_described_as_they_are(users: Driver) -> None:
    schema = document_of(users)["components"]["schemas"]["users.Error"]
    failure = users.call("POST", "/users", {}, users.admin).get_json()
    assert set(failure) <= set(schema["properties"])
    assert set(schema["required"]) <= set(failure)


def test_nothing_is_a_document_too() -> None:
    validate(assemble({}))


def test_the_page_loads_nothing_from_elsewhere(users: Driver) -> None:
    answer = users.client.get("/docs")
    assert answer.mimetype == "text/html"
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert "http://" not in answer.text
    assert "https://" not in answer.text


def test_while_one_request_asks_the_services_the_others_wait_for_nothing() -> None:
    """Anybody may ask for the document; a service that hangs must not take every thread."""
    whole = WholeApi({})
    assert whole.document(dict)["paths"] == {}
    whole._good_until = float("-inf")
    asking, go_on = threading.Event(), threading.Event()

    def slow() -> dict:
        asking.set()
        go_on.wait(10)
        return {}

    thread = threading.Thread(target=whole.document, args=(slow,))
    thread.start()
    assert asking.wait(5)
    assert whole.document(slow)["paths"] == {}
    go_on.set()
    thread.join()
