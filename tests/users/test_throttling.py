"""Guessing passwords is slow."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.users.driver import ADMIN, ADMIN_PASSWORD, Driver, users_config


@pytest.fixture()
def strict(environment: Callable[..., dict[str, str]]) -> Driver:
    """Three failures of a user from an address, five of a user, eight of an address."""
    limits = {"SIGN_IN_FAILURES": "3", "SIGN_IN_FAILURES_PER_USER": "5", "SIGN_IN_FAILURES_PER_ADDRESS": "8"}
    return Driver.of(users_config(environment(), **limits))


def attempt(users: Driver, username: str, password: str = "wrong", address: str = "192.0.2.1") -> int:
    body = {"username": username, "password": password}
    return users.call("POST", "/auth/token", body, address=address).status_code


@pytest.mark.parametrize("username", [ADMIN, "nobody"])
def test_after_some_failures_even_the_right_password_waits(strict: Driver, username: str) -> None:
    assert [attempt(strict, username) for _ in range(4)] == [401, 401, 401, 429]
    assert attempt(strict, username, ADMIN_PASSWORD) == 429
    body = {"username": username, "password": "wrong"}
    answer = strict.call("POST", "/auth/token", body, address="192.0.2.1")
    assert 0 < int(answer.headers["Retry-After"]) <= 300
    assert answer.get_json() == {"statusCode": 429, "message": "Too Many Requests"}


def test_somebody_elses_failures_elsewhere_do_not_lock_a_user_out(strict: Driver) -> None:
    for _ in range(4):
        attempt(strict, ADMIN)
    assert attempt(strict, ADMIN, ADMIN_PASSWORD, "192.0.2.2") == 200


def test_failures_from_many_addresses_count_against_the_user(strict: Driver) -> None:
    statuses = [attempt(strict, ADMIN, address=f"192.0.2.{number}") for number in range(10, 17)]
    assert statuses == [401] * 5 + [429] * 2


def test_failures_with_many_names_count_against_the_address(strict: Driver) -> None:
    statuses = [attempt(strict, f"name-{number}") for number in range(10)]
    assert statuses == [401] * 8 + [429] * 2


def test_a_success_begins_the_count_anew(strict: Driver) -> None:
    for _ in range(4):
        assert [attempt(strict, ADMIN) for _ in range(1)] == [401]
        assert attempt(strict, ADMIN, ADMIN_PASSWORD) == 200


def test_a_burst_of_guesses_gets_no_more_tries_than_one_after_the_other(strict: Driver) -> None:
    with ThreadPoolExecutor(10) as pool:
        statuses = list(pool.map(lambda _: attempt(strict, ADMIN), range(10)))
    assert sorted(statuses) == [401] * 3 + [429] * 7


def test_the_window_ends(environment: Callable[..., dict[str, str]]) -> None:
    users = Driver.of(users_config(environment(), SIGN_IN_FAILURES="1", SIGN_IN_WINDOW_SECONDS="1"))
    assert [attempt(users, ADMIN) for _ in range(2)] == [401, 429]
    import time

    deadline = time.monotonic() + 10
    while attempt(users, ADMIN, ADMIN_PASSWORD) != 200:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_guessing_the_old_password_is_throttled_too(strict: Driver) -> None:
    body = {"old": "wrong", "new": "x"}
    statuses = [strict.call("PUT", "/users/me/password", body, strict.admin).status_code for _ in range(4)]
    assert statuses == [400, 400, 400, 429]


def test_all_addresses_of_an_ipv6_network_count_as_one(strict: Driver) -> None:
    """Who has one has 2^64 of them."""
    statuses = [attempt(strict, f"name-{number}", address=f"2001:db8::{number:x}") for number in range(10)]
    assert statuses == [401] * 8 + [429] * 2
    assert attempt(strict, "somebody", address="2001:db8:0:1::1") == 401
