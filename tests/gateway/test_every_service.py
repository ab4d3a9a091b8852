"""Every route of every service says whom it is for; the gateway leads to those for clients, and no others."""

import re
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

import pytest
from flask import Flask

from services.common.identity import USER_AUDIENCE, access_of, undeclared_routes

ROOT = Path(__file__).resolve().parents[2]
SERVICES = ("users", "checkpoints", "endpoints", "inference", "datasets", "training")
OPEN = {
    "users": {
        "/healthz",
        "/readyz",
        "/openapi.json",
        "/docs",
        "/.well-known/jwks.json",
        "/internal/jwks.json",
    },
}
OPEN_EVERYWHERE = {"/healthz", "/readyz", "/internal/openapi.json"}
NOT_FOR_CLIENTS = ("/internal/", "/healthz", "/readyz")


@pytest.fixture(scope="module")
def apps(environment: Callable[..., dict[str, str]]) -> Iterator[dict[str, Flask]]:
    """The applications as they are served."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment().items():
            patch.setenv(name, value)
        yield {name: import_module(f"services.{name}.app").create_app() for name in SERVICES}


def test_there_is_no_other_service() -> None:
    assert {path.parent.name for path in (ROOT / "services").glob("*/app.py")} == set(SERVICES)


@pytest.mark.parametrize("service", SERVICES)
def test_every_route_of_every_service_declares_its_right(apps: dict[str, Flask], service: str) -> None:
    app = apps[service]
    assert len(list(app.url_map.iter_rules())) > 5
    assert list(undeclared_routes(app)) == []


@pytest.mark.parametrize("service", SERVICES)
def test_what_is_open_to_all_is_listed_here(apps: dict[str, Flask], service: str) -> None:
    app = apps[service]
    opened = {
        str(rule)
        for rule in app.url_map.iter_rules()
        if (access_of(app.view_functions[rule.endpoint]) or (None,))[0] is None
    }
    assert opened == OPEN_EVERYWHERE | OPEN.get(service, set())


@pytest.mark.parametrize("service", SERVICES)
def test_internal_routes_are_not_for_clients_and_the_others_are(apps: dict[str, Flask], service: str) -> None:
    app = apps[service]
    for rule in app.url_map.iter_rules():
        audience, _ = access_of(app.view_functions[rule.endpoint]) or (None, None)
        if audience is not None:
            assert (audience == USER_AUDIENCE) != str(rule).startswith("/internal/"), rule


@pytest.mark.parametrize("service", SERVICES)
def test_the_gateway_leads_to_every_route_for_clients(apps: dict[str, Flask], service: str) -> None:
    text = (ROOT / "gateway" / "locations.conf.template").read_text()
    blocks = re.findall(r"^location (=|~) (\S+) \{\n(.*?)^\}", text, re.MULTILINE | re.DOTALL)
    app = apps[service]
    for rule in app.url_map.iter_rules():
        if str(rule).startswith(NOT_FOR_CLIENTS):
            continue
        path = re.sub(r"<[^>]+>", "x", str(rule))
        block = next(
            block
            for kind, place, block in blocks
            if (kind == "=" and place == path) or (kind == "~" and re.search(place, path))
        )
        assert f"proxy_pass http://{service};" in block, rule
        audience, needs = access_of(app.view_functions[rule.endpoint]) or (None, None)
        wanted = "require_key" if needs == "key only" else "require_identity" if audience else "set_header"
        assert wanted in block, rule
