"""A key's own limit of requests per minute."""

from collections.abc import Callable

from tests.users.driver import ADMIN, Driver, users_config

Environment = Callable[..., dict[str, str]]


def limited_key(users: Driver, limit: int) -> str:
    body = {"name": "slow", "username": ADMIN, "rate_limit": limit}
    secret: str = users.call("POST", "/api-keys", body, users.admin).get_json()["data"]["api_key"]["key"]
    return secret


def test_a_key_is_refused_over_its_limit_and_other_keys_are_not(users: Driver) -> None:
    key = limited_key(users, 3)
    answers = [users.call("GET", path, key=key) for path in ("/users", "/roles", "/ping", "/users")]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert answers[-1].get_json() == {"statusCode": 429, "message": "Too Many Requests"}
    assert 0 < int(answers[-1].headers["Retry-After"]) <= 61
    assert users.call("GET", "/users", who=users.admin).status_code == 200


def test_two_instances_count_together(environment: Environment) -> None:
    config = users_config(environment())
    one, two = Driver.of(config), Driver.of(config)
    key = limited_key(one, 4)
    statuses = [users.call("GET", "/users", key=key).status_code for users in (one, two) * 3]
    assert statuses == [200] * 4 + [429] * 2


def test_the_limit_holds_within_the_seconds_of_a_cached_verdict(environment: Environment) -> None:
    users = Driver.of(users_config(environment(), AUTHENTICATION_CACHE_SECONDS="5"))
    key = limited_key(users, 2)
    statuses = [users.call("GET", "/users", key=key).status_code for _ in range(4)]
    assert statuses == [200, 200, 429, 429]


def test_without_redis_each_instance_counts_for_itself(environment: Environment) -> None:
    users = Driver.of(users_config(environment(REDIS_URL="redis://127.0.0.1:1/0")))
    key = limited_key(users, 2)
    statuses = [users.call("GET", "/users", key=key).status_code for _ in range(3)]
    assert statuses == [200, 200, 429]
