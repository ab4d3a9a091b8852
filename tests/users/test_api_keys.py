"""API keys: bound, delegating, expiring, and shown once."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jwt
import pytest

from services.users.parts import EXTENSION
from tests.users.driver import ADMIN, ADMIN_KEY, Driver, Person, users_config


def make(users: Driver, who: Person | None = None, **body: Any) -> dict[str, Any]:
    answer = users.call("POST", "/api-keys", {"name": "test"} | body, who or users.admin)
    assert answer.status_code == 201, answer.text
    key: dict[str, Any] = answer.get_json()["data"]["api_key"]
    return key


def own_key(users: Driver, who: Person, **body: Any) -> dict[str, Any]:
    answer = users.call("POST", "/users/me/api-keys", {"name": "mine"} | body, who)
    assert answer.status_code == 201, answer.text
    key: dict[str, Any] = answer.get_json()["data"]["api_key"]
    return key


def acts_as(users: Driver, key: str, **headers: str) -> str | int:
    """The name behind the credentials, or the status of the refusal."""
    verdict = users.ask({"x-api-key": key} | headers)
    if verdict.status_code != 200:
        return verdict.status_code
    name: str = jwt.decode(verdict.headers["X-Internal-Token"], options={"verify_signature": False})["sub"]
    return name


def test_the_secret_is_shown_once_and_its_beginning_always(users: Driver) -> None:
    key = make(users)
    listed = users.call("GET", "/api-keys", who=users.admin)
    assert key["key"] not in listed.text
    assert key["key"].startswith(key["prefix"])
    shown = {entry["id"]: entry for entry in listed.get_json()["data"]["api_keys"]}[key["id"]]
    assert shown["prefix"] == key["prefix"]
    assert "hash" not in shown


def test_an_unbound_key_names_an_application_and_nobody(users: Driver) -> None:
    key = make(users)["key"]
    assert acts_as(users, key) == 401
    assert acts_as(users, key, Authorization=f"Bearer {users.admin.token}") == ADMIN


def test_a_deleted_key_opens_nothing(users: Driver) -> None:
    key = make(users, username=ADMIN)
    assert acts_as(users, key["key"]) == ADMIN
    body = {"api_key_id_list": [key["id"], "never was"]}
    assert users.call("DELETE", "/api-keys", body, users.admin).status_code == 204
    assert acts_as(users, key["key"]) == 403


def test_an_expired_key_opens_nothing(users: Driver) -> None:
    assert acts_as(users, make(users, username=ADMIN, expires_at=time.time() + 60)["key"]) == ADMIN
    assert acts_as(users, make(users, username=ADMIN, expires_at=time.time() - 1)["key"]) == 403
    assert acts_as(users, make(users, username=ADMIN, expires_at="2020-01-01 00:00:00.000000")["key"]) == 403


def test_a_bound_key_alone_acts_as_its_user(users: Driver) -> None:
    person = users.person()
    key = own_key(users, person)["key"]
    assert acts_as(users, key) == person.username
    assert acts_as(users, key, Authorization="some fixed word") == person.username
    assert acts_as(users, key, Authorization="Bearer fixed.word.here") == person.username
    assert acts_as(users, key, Authorization=f"Bearer {person.token}") == person.username


def test_a_bound_key_with_another_subjects_or_a_broken_token_is_nobody(users: Driver) -> None:
    person = users.person()
    key = own_key(users, person)["key"]
    assert acts_as(users, key, Authorization=f"Bearer {users.admin.token}") == 401
    assert acts_as(users, key, Authorization=f"Bearer {person.token[:-4]}AAAA") == 401


def test_a_token_counts_under_the_scheme_bearer_only(users: Driver) -> None:
    token = users.admin.token
    for scheme in ("Bearer", "bearer", "BEARER", " Bearer "):
        assert acts_as(users, ADMIN_KEY, Authorization=f"{scheme} {token}") == ADMIN
    for wrong in (token, f"Basic {token}", f"Bearer {token} {token}", f"Bearer x {token}", f"Bearer{token}"):
        assert acts_as(users, ADMIN_KEY, Authorization=wrong) == 401
    bound = own_key(users, users.admin)["key"]
    assert acts_as(users, bound, Authorization=token) == 401


def test_the_username_header_is_ignored_without_the_delegate_scope(users: Driver) -> None:
    person = users.person()
    assert acts_as(users, ADMIN_KEY, username=ADMIN) == 401
    assert acts_as(users, make(users)["key"], username=ADMIN) == 401
    assert acts_as(users, own_key(users, person)["key"], username=ADMIN) == person.username
    assert (
        acts_as(users, ADMIN_KEY, username=ADMIN, Authorization=f"Bearer {person.token}") == person.username
    )


def test_a_delegating_key_acts_as_the_user_it_names(users: Driver) -> None:
    person = users.person()
    key = make(users, scopes=["delegate"])["key"]
    assert acts_as(users, key, username=person.username) == person.username
    assert acts_as(users, key, username="nobody") == 401
    assert acts_as(users, key, username="") == 401
    assert acts_as(users, key) == 401
    assert acts_as(users, key, username=ADMIN, Authorization=f"Bearer {person.token}") == person.username


def test_only_who_holds_everything_gives_the_delegate_scope(users: Driver) -> None:
    chief = users.person("user:all", "role:all", "inference:all", "checkpoint:all", "train:all")
    body = {"name": "x", "scopes": ["delegate"]}
    answer = users.call("POST", "/api-keys", body, chief)
    assert answer.status_code == 403
    assert "administrator" in answer.get_json()["message"]
    own = users.call("POST", "/users/me/api-keys", body, chief).get_json()["data"]["api_key"]
    assert own["scopes"] == []


def test_a_key_cannot_be_bound_to_a_stronger_user(users: Driver) -> None:
    chief = users.person("user:all")
    answer = users.call("POST", "/api-keys", {"name": "x", "username": ADMIN}, chief)
    assert answer.status_code == 403
    weaker = users.person("user:list")
    assert acts_as(users, make(users, chief, username=weaker.username)["key"]) == weaker.username


def test_a_key_is_bound_or_delegating_not_both(users: Driver) -> None:
    body = {"name": "x", "username": ADMIN, "scopes": ["delegate"]}
    assert users.call("POST", "/api-keys", body, users.admin).status_code == 400


def test_a_key_for_an_unknown_user_is_a_bad_request(users: Driver) -> None:
    answer = users.call("POST", "/api-keys", {"name": "x", "username": "nobody"}, users.admin)
    assert (answer.status_code, answer.get_json()["message"]) == (400, 'user: "nobody" not exist')


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": ""},
        {"name": "x", "scopes": ["everything"]},
        {"name": "x", "scopes": "delegate"},
        {"name": "x", "expires_at": "tomorrow"},
        {"name": "x", "expires_at": 1e300},
        {"name": "x", "expires_at": True},
        {"name": "x", "rate_limit": 0},
        {"name": "x", "rate_limit": "many"},
        {"name": "x", "username": {"$ne": None}},
        {"name": {"$ne": None}},
    ],
    ids=str,
)
def test_a_wrong_key_is_a_bad_request(users: Driver, body: dict[str, Any]) -> None:
    assert users.call("POST", "/api-keys", body, users.admin).status_code == 400


def test_one_sees_and_deletes_ones_own_keys_only(users: Driver) -> None:
    ann, bob = users.person(), users.person()
    key = own_key(users, ann)
    listed = users.call("GET", "/users/me/api-keys", who=bob).get_json()["data"]["api_keys"]
    assert listed == []
    body = {"api_key_id_list": [key["id"]]}
    assert users.call("DELETE", "/users/me/api-keys", body, bob).status_code == 204
    assert acts_as(users, key["key"]) == ann.username
    assert users.call("DELETE", "/users/me/api-keys", body, ann).status_code == 204
    assert acts_as(users, key["key"]) == 403


def test_a_slow_bound_key_cannot_make_itself_a_faster_one(users: Driver) -> None:
    person = users.person()
    slow = own_key(users, person, rate_limit=10)["key"]
    made = users.call("POST", "/users/me/api-keys", {"name": "fast", "rate_limit": 1000}, key=slow)
    assert made.get_json()["data"]["api_key"]["rate_limit"] == 10


def test_a_bound_key_that_expires_cannot_make_itself_one_that_stays(users: Driver) -> None:
    person = users.person()
    brief = own_key(users, person, expires_at=time.time() + 60)
    for wanted in (None, time.time() + 10**6, time.time() + 30):
        made = users.call("POST", "/users/me/api-keys", {"name": "x", "expires_at": wanted}, key=brief["key"])
        expires_at = made.get_json()["data"]["api_key"]["expires_at"]
        assert expires_at is not None
        assert expires_at <= brief["expires_at"]


def test_the_last_use_of_a_key_is_written_down(users: Driver) -> None:
    key = make(users, username=ADMIN)
    assert key["last_used_at"] is None
    acts_as(users, key["key"])

    def last_used() -> str | None:
        listed = users.call("GET", "/api-keys", who=users.admin).get_json()["data"]["api_keys"]
        return next(entry["last_used_at"] for entry in listed if entry["id"] == key["id"])

    deadline = time.monotonic() + 5
    while last_used() is None and time.monotonic() < deadline:
        time.sleep(0.02)  # the write is not waited for
    assert last_used()


def test_verdicts_are_kept_for_their_seconds_and_no_longer(
    environment: Callable[..., dict[str, str]],
) -> None:
    users = Driver.of(users_config(environment(), AUTHENTICATION_CACHE_SECONDS="1"))
    headers = {"x-api-key": ADMIN_KEY, "Authorization": f"Bearer {users.admin.token}"}
    first, second = users.ask(headers), users.ask(headers)
    assert first.headers["X-Internal-Token"] == second.headers["X-Internal-Token"]
    assert users.ask({"x-api-key": ADMIN_KEY, "Authorization": ""}).status_code == 401
    assert users.ask({"x-api-key": ADMIN_KEY}, identity=False).status_code == 200
    key = make(users, username=ADMIN)
    assert acts_as(users, key["key"]) == ADMIN
    users.call("DELETE", "/api-keys", {"api_key_id_list": [key["id"]]}, users.admin)
    deadline = time.monotonic() + 5
    while acts_as(users, key["key"]) != 403:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("path", ["/api-keys", "/users/me/api-keys"])
def test_a_repeat_with_an_idempotency_key_makes_no_second_key(users: Driver, path: str) -> None:
    person = users.person("user:all")
    own = {"X-Internal-Token": users.ask(signed_in(person)).headers["X-Internal-Token"]}

    def ask(repeat: str) -> dict[str, Any]:
        answer = users.client.post(path, json={"name": "once"}, headers=own | {"Idempotency-Key": repeat})
        assert answer.status_code == 201, answer.text
        key: dict[str, Any] = answer.get_json()["data"]["api_key"]
        return key

    first, again, other = ask("one"), ask("one"), ask("two")
    assert first["key"]
    assert again == first | {"key": None}
    assert other["id"] != first["id"]
    ids = [key["id"] for key in users.call("GET", path, who=person).get_json()["data"]["api_keys"]]
    assert ids.count(first["id"]) == 1
    assert users.ask({"x-api-key": first["key"]}).status_code == (200 if "me" in path else 401)


def test_of_many_repeats_at_once_one_shows_the_secret(users: Driver) -> None:
    person = users.person("user:all")
    own = {"X-Internal-Token": users.ask(signed_in(person)).headers["X-Internal-Token"]}

    def ask(_: int) -> dict[str, Any]:
        headers = own | {"Idempotency-Key": "same"}
        answer = users.app.test_client().post("/users/me/api-keys", json={"name": "x"}, headers=headers)
        key: dict[str, Any] = answer.get_json()["data"]["api_key"]
        return key

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(ask, range(8)))
    assert len({key["id"] for key in made}) == 1
    assert sum(key["key"] is not None for key in made) == 1


def test_a_key_that_was_left_behind_does_not_act_as_the_next_user_of_its_name(users: Driver) -> None:
    """As when a key is made at the moment its user is deleted."""
    person = users.person()
    key = own_key(users, person)
    repository = users.app.extensions[EXTENSION].repository
    repository._users.delete_one({"_id": person.username})
    roles = [users.role("inference:list")]
    body = {"username": person.username, "password": "x", "roles": roles, "creator": ADMIN}
    assert users.call("POST", "/users", body, users.admin).status_code == 201
    assert acts_as(users, key["key"]) == 403


def signed_in(person: Person) -> dict[str, str]:
    return {"x-api-key": ADMIN_KEY, "Authorization": f"Bearer {person.token}"}
