"""Every route of every service, tried with the ids of another user's: nothing is seen, nothing changes."""

from collections.abc import Callable, Iterator

import pytest
from flask import Flask

from services.common.identity import USER_AUDIENCE, access_of
from tests.conftest import Keys
from tests.isolation.rows import ROWS, UNSEEN, Row
from tests.isolation.world import SERVICES, World, make_world

CASES = [
    pytest.param(service, route, row, id=f"{service}: {route}")
    for service, rows in ROWS.items()
    for route, row in rows.items()
    if isinstance(row, Row)
]


@pytest.fixture(scope="module")
def world(environment: Callable[..., dict[str, str]], keys: Keys) -> Iterator[World]:
    with make_world(environment, keys) as made:
        yield made


def routes_of(app: Flask, audience: str | None) -> set[str]:
    """The routes for this kind of caller."""
    return {
        f"{method} {rule}"
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if (access_of(app.view_functions[rule.endpoint]) or (None,))[0] == audience
    }


def test_every_route_has_its_row(world: World) -> None:
    for service in SERVICES:
        rows = ROWS.get(service, {})
        assert set(rows) == routes_of(world.apps[service], USER_AUDIENCE), f"of {service}"


def test_the_owner_reaches_what_the_stranger_is_to_miss(world: World) -> None:
    """Else a 404 would prove nothing."""
    lists = [
        ("inference", "/inferences", "waiting job"),
        ("inference", "/webhooks", "webhook"),
        ("checkpoints", "/checkpoints", "checkpoint"),
        ("endpoints", "/endpoints", "endpoint"),
        ("datasets", "/datasets", "dataset"),
        ("training", "/models", "model"),
        ("training", "/trainings", "training"),
        ("users", "/users", "user made"),
        ("users", "/roles", "role"),
        ("users", "/users/me/api-keys", "key"),
    ]
    for service, path, thing in lists:
        assert world.owned[thing] in world.call(service, "GET", path, world.owner).text, path
    for service, path, thing in (
        ("inference", "/inferences/{}", "job"),
        ("inference", "/inferences/{}", "endpoint id"),
        ("inference", "/webhooks/{}", "webhook"),
        ("checkpoints", "/checkpoints/{}", "checkpoint"),
        ("endpoints", "/endpoints/{}", "endpoint"),
        ("datasets", "/datasets/{}", "dataset"),
        ("training", "/trainings/{}", "training"),
    ):
        answer = world.call(service, "GET", path.format(world.owned[thing]), world.owner)
        assert answer.status_code == 200, (path, answer.text)


@pytest.mark.parametrize(("service", "route", "row"), CASES)
def test_a_strangers_call(world: World, service: str, route: str, row: Row) -> None:
    method, rule = route.split(" ")
    before = world.everything()
    path = rule if row.path is None else rule[: rule.index("<")] + world.owned[row.path] + _rest(rule)
    answer = world.call(service, method, path, world.stranger, row.body(world), row.query(world))
    assert answer.status_code in row.answers, answer.text
    if row.answers == UNSEEN:
        shown = [thing for thing, name in world.owned.items() if f'"{name}"' in answer.text]
        assert shown == [], answer.text
        assert "owned" not in answer.text
    after = world.everything()
    changed = [place for place, what in before.items() if after.get(place) != what]
    assert changed == []


def test_a_deployments_id_is_no_way_round(world: World) -> None:
    path = f"/inferences/{world.owned['endpoint id']}"
    assert world.call("inference", "GET", path, world.stranger).status_code == 404


@pytest.mark.parametrize("service", SERVICES)
def test_no_user_gets_into_what_is_between_processes(world: World, service: str) -> None:
    app = world.apps[service]
    for route in sorted(routes_of(app, "sdfleet-service") | routes_of(app, "sdfleet-worker")):
        method, rule = route.split(" ")
        path = rule.replace("<", "").replace(">", "")
        answer = world.call(service, method, path, world.stranger, {})
        assert answer.status_code == 401, route


def _rest(rule: str) -> str:
    return rule[rule.index(">") + 1 :]
