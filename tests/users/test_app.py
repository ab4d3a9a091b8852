"""What a users service begins with, and that every route says whom it is for."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from pymongo import MongoClient

from services.common.identity import undeclared_routes
from services.users.app import create_app
from services.users.config import Config
from tests.users.driver import ADMIN, ADMIN_KEY, Driver, users_config

Environment = Callable[..., dict[str, str]]


def test_every_route_declares_its_right(users: Driver) -> None:
    assert list(undeclared_routes(users.app)) == []


def test_a_call_that_goes_round_the_gateway_is_refused(users: Driver) -> None:
    headers = {"x-api-key": ADMIN_KEY, "Authorization": f"Bearer {users.admin.token}"}
    for path in ("/users", "/roles", "/api-keys", "/audit", "/ping"):
        assert users.client.get(path, headers=headers).status_code == 401


def test_ping_answers_pong_to_a_key_alone(users: Driver) -> None:
    answer = users.call("GET", "/ping")
    assert (answer.status_code, answer.get_json()["message"]) == (200, "pong")


def published_keys(config: Config, together: Any) -> Any:
    """Start a users service of one's own process, at the same moment as the others, and ask for its keys."""
    together.wait(60)
    return create_app(config).test_client().get("/.well-known/jwks.json").get_json()["keys"]


def test_instances_that_start_at_once_agree_on_key_and_administrator(environment: Environment) -> None:
    config = users_config(environment())
    # Processes, as in a deployment: CPython 3.11 cannot compile werkzeug's rules in two threads at once.
    spawn = multiprocessing.get_context("spawn")
    with spawn.Manager() as manager, ProcessPoolExecutor(3, spawn) as pool:
        together = manager.Barrier(3)
        published = list(pool.map(published_keys, [config] * 3, [together] * 3))
    assert len(published[0]) == 1
    assert published[0] == published[1] == published[2]
    driver = Driver.of(config)
    assert driver.client.get("/.well-known/jwks.json").get_json()["keys"] == published[0]
    assert driver.names() == {ADMIN}
    assert len(driver.call("GET", "/api-keys", who=driver.admin).get_json()["data"]["api_keys"]) == 1


def test_the_first_start_alone_writes_the_administrator(environment: Environment) -> None:
    settings = environment()
    driver = Driver.of(users_config(settings))
    again = create_app(users_config(settings, ADMIN_PASSWORD="another", ADMIN_USERNAME="somebody"))
    assert again.test_client().get("/readyz").status_code == 200
    assert driver.names() == {ADMIN}
    driver.sign_in(ADMIN, driver.admin.password or "the first administrator's password")


def test_no_password_key_or_token_is_readable_in_the_database(environment: Environment) -> None:
    settings = environment()
    driver = Driver.of(users_config(settings))
    made = driver.call("POST", "/users/me/api-keys", {"name": "mine"}, driver.admin).get_json()
    secrets = [
        ADMIN_KEY,
        driver.admin.password,
        driver.admin.token,
        driver.admin.refresh_token,
        made["data"]["api_key"]["key"],
    ]
    with MongoClient[dict](settings["MONGODB_URL"]) as client:
        database = client[f"{settings['MONGODB_DATABASE_PREFIX']}_users"]
        everything = repr([list(database[name].find()) for name in database.list_collection_names()])
    assert driver.admin.username in everything
    assert [secret for secret in secrets if secret in everything] == []
