"""Names of users and roles: what they may hold, and which look the same."""

import pytest

from services.users.names import skeleton
from tests.users.driver import ADMIN, Driver

HARMLESS = [
    "a$b",
    "$where",
    "a.b",
    "../x",
    "x' OR 1=1",
    "{}",
    "ann@example.org",
    "陳大文",
    "Мария",
    "IT 部门",
    "a" * 64,
]
REFUSED = [
    *("nul\0", "line\nbreak", "tab\t", "bell\a", "x" * 65, "x" * 10_000, " edge", "edge ", "\u200binvisible"),
    *("right\u202eleft", "wide\u3000space", "\ue000", "\ud7ff\u00ad"),
]


@pytest.mark.parametrize("name", HARMLESS)
def test_a_harmless_name_works_for_users_and_roles(users: Driver, name: str) -> None:
    role = {"role_name": name, "permissions": ["inference:list"], "creator": ADMIN}
    assert users.call("POST", "/roles", role, users.admin).status_code == 201
    user = {"username": name, "password": "x", "roles": [name], "creator": ADMIN}
    assert users.call("POST", "/users", user, users.admin).status_code == 201
    person = users.sign_in(name, "x")
    assert users.names(person) == {name}
    assert users.call("DELETE", "/users", {"user_name_list": [name]}, users.admin).status_code == 204
    assert users.call("DELETE", "/roles", {"role_name_list": [name]}, users.admin).status_code == 204


@pytest.mark.parametrize("name", REFUSED, ids=ascii)
def test_a_name_with_more_than_visible_characters_is_refused(users: Driver, name: str) -> None:
    role = {"role_name": name, "permissions": ["inference:list"], "creator": ADMIN}
    assert users.call("POST", "/roles", role, users.admin).status_code == 400
    user = {"username": name, "password": "x", "roles": ["IT Operator"], "creator": ADMIN}
    assert users.call("POST", "/users", user, users.admin).status_code == 400


def test_a_lone_surrogate_in_a_name_is_an_invalid_body(users: Driver) -> None:
    user = {"username": "\ud800", "password": "x", "roles": ["IT Operator"], "creator": ADMIN}
    answer = users.call("POST", "/users", user, users.admin)
    assert (answer.status_code, answer.get_json()["message"]) == (400, "Invalid request body")


@pytest.mark.parametrize("alike", ["Admin", "ADMIN", "аdmin", "ａｄｍｉｎ", "аdmіn", "𝐚𝐝𝐦𝐢𝐧"])
def test_nobody_can_be_called_like_the_administrator(users: Driver, alike: str) -> None:
    user = {"username": alike, "password": "x", "roles": ["IT Operator"], "creator": ADMIN}
    answer = users.call("POST", "/users", user, users.admin)
    assert (answer.status_code, answer.get_json()["message"]) == (
        400,
        f'user name "{alike}" is taken, or too like one that is',
    )
    assert alike not in users.names()


def test_no_role_can_be_called_like_the_default_one(users: Driver) -> None:
    role = {"role_name": "IT Operаtоr", "permissions": ["inference:list"], "creator": ADMIN}
    assert users.call("POST", "/roles", role, users.admin).status_code == 400


def test_two_spellings_of_one_accent_are_one_name(users: Driver) -> None:
    for spelling in ("Zo\u00eb", "Zoe\u0308"):
        user = {"username": spelling, "password": "x", "roles": ["IT Operator"], "creator": ADMIN}
        assert users.call("POST", "/users", user, users.admin).status_code == 201
    assert {name for name in users.names() if name.startswith("Zo")} == {"Zo\u00eb"}


def test_different_words_stay_different() -> None:
    assert skeleton("か") != skeleton("が")
    assert skeleton("José") != skeleton("Jose")
    assert skeleton("ann") != skeleton("anna")
