"""The one description of the API: every public route of every service, each told in words."""

import re
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import pytest
from flask import Flask
from openapi_spec_validator import validate

from services.users.openapi import UNLISTED, assemble
from stack.settings import ROOT
from tests.gateway.test_every_service import SERVICES

METHODS = ("get", "post", "put", "delete", "patch")


@pytest.fixture(scope="module")
def apps(environment: Callable[..., dict[str, str]]) -> Iterator[dict[str, Flask]]:
    """The applications as they are served."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment().items():
            patch.setenv(name, value)
        yield {name: import_module(f"services.{name}.app").create_app() for name in SERVICES}


@pytest.fixture(scope="module")
def document(apps: dict[str, Flask]) -> dict[str, Any]:
    """What `GET /openapi.json` answers when every service does."""
    return assemble(
        {name: app.test_client().get("/internal/openapi.json").get_json() for name, app in apps.items()}
    )


def operations(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        f"{method.upper()} {path}": item[method]
        for path, item in document["paths"].items()
        for method in METHODS
        if method in item
    }


def public(app: Flask) -> set[str]:
    return {
        f"{method} {_as_documented(str(rule))}"
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if not str(rule).startswith(UNLISTED)
    }


def _as_documented(rule: str) -> str:
    return re.sub(r"<(?:[a-z]+:)?([a-z_]+)>", r"{\1}", rule)


def test_it_is_a_valid_document(document: dict[str, Any]) -> None:
    validate(document)


@pytest.mark.parametrize("service", SERVICES)
def test_it_lists_the_routes_that_a_service_serves(
    apps: dict[str, Flask], document: dict[str, Any], service: str
) -> None:
    assert sorted(public(apps[service]) - set(operations(document))) == []


def test_it_lists_nothing_that_no_service_serves(apps: dict[str, Flask], document: dict[str, Any]) -> None:
    served = set().union(*(public(app) for app in apps.values()))
    assert sorted(set(operations(document)) - served) == []


def test_every_operation_says_in_a_sentence_what_it_does(document: dict[str, Any]) -> None:
    silent = [
        name for name, operation in operations(document).items() if len(operation.get("summary", "")) < 12
    ]
    assert silent == []


def test_every_operation_has_a_good_answer_and_tells_failures(document: dict[str, Any]) -> None:
    for name, operation in operations(document).items():
        answers = operation["responses"]
        assert [status for status in answers if status.startswith("2")], name
        assert "default" in answers or [status for status in answers if status.startswith("4")], name


def test_every_writing_operation_describes_its_body(document: dict[str, Any]) -> None:
    without = [
        name
        for name, operation in operations(document).items()
        if name.split()[0] in {"POST", "DELETE"} and "requestBody" not in operation
    ]
    assert without == []


def test_every_public_route_is_in_the_table_of_routes(document: dict[str, Any]) -> None:
    table = re.sub(r"\{[^}]*\}", "{}", (ROOT / "docs" / "api.md").read_text())
    missing = []
    for path in document["paths"]:
        plain = re.sub(r"\{[^}]*\}", "{}", path)
        # Some answer under the older /inference/… too, which the table names; lists of paths are shortened.
        ways = (plain, plain.replace("/inferences/", "/inference/"), f"…/{path.rsplit('/')[-1]}`")
        missing += [] if any(way in table for way in ways) else [path]
    assert missing == []
