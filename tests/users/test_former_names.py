"""A deleted user's name that somebody else gets: nothing of the former is left that reaches outside."""

import secrets
from collections.abc import Callable, Iterator

import pytest

from tests.neighbours import Neighbours, neighbours
from tests.users.driver import Driver, users_config


@pytest.fixture()
def inference() -> Iterator[Neighbours]:
    with neighbours() as running:
        running.answers["forget-webhooks"] = lambda _: None
        yield running


@pytest.fixture()
def users(environment: Callable[..., dict[str, str]], inference: Neighbours) -> Driver:
    return Driver.of(users_config(environment(), INFERENCE_URL=inference.url))


def put(users: Driver, name: str) -> int:
    body = {
        "username": name,
        "password": secrets.token_hex(12),
        "roles": [users.role("inference:list")],
        "creator": users.admin.username,
    }
    return users.call("POST", "/users", body, users.admin).status_code


def delete(users: Driver, name: str) -> None:
    answer = users.call("DELETE", "/users", {"user_name_list": [name]}, users.admin)
    assert answer.status_code == 204


def test_the_webhooks_of_a_former_user_are_forgotten_before_the_name_is_given_again(
    users: Driver, inference: Neighbours
) -> None:
    assert put(users, "ann") == put(users, "ann") == 201
    delete(users, "ann")
    assert inference.calls == [], "a user who is new, or replaced, is nobody's successor"
    assert put(users, "ann") == 201
    assert inference.calls == [("forget-webhooks", {"usernames": ["ann"]})]
    assert put(users, "ann") == 201
    assert len(inference.calls) == 1, "what they have set up themselves since then stays"


def test_while_inference_does_not_answer_the_name_is_not_given(users: Driver, inference: Neighbours) -> None:
    put(users, "ann")
    delete(users, "ann")
    del inference.answers["forget-webhooks"]
    assert put(users, "ann") == 503
    shown = users.call("GET", "/users?username=ann", who=users.admin).get_json()["data"]["users"]
    assert shown == []
