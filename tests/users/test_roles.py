"""/roles as the contract says."""

from typing import Any

import pytest

from tests.users.driver import ADMIN, Driver

IT_OPERATOR = "IT Operator"
EVERYTHING = {
    *("train:all", "checkpoint:all", "inference:all", "sagemaker_endpoint:all", "user:all", "role:all"),
}


def shown(users: Driver, name: str) -> dict[str, Any] | None:
    found = users.call("GET", f"/roles?role={name}", who=users.admin).get_json()["data"]["roles"]
    return found[0] if found else None


def test_the_default_role_has_everything(new_users: Driver) -> None:
    role = shown(new_users, IT_OPERATOR)
    assert role
    assert set(role["permissions"]) == EVERYTHING


def test_a_created_role_is_listed_with_creator_and_permissions(users: Driver) -> None:
    body = {"role_name": "Designers", "permissions": ["inference:list", "checkpoint:all"], "creator": ADMIN}
    answer = users.call("POST", "/roles", body, users.admin)
    assert (answer.status_code, answer.get_json()) == (201, {"statusCode": 201, "message": "role created"})
    assert shown(users, "Designers") == {
        "role_name": "Designers",
        "creator": ADMIN,
        "permissions": ["checkpoint:all", "inference:list"],
    }


def test_creating_a_role_again_replaces_its_permissions(users: Driver) -> None:
    name = users.role("inference:list")
    body = {"role_name": name, "permissions": ["train:list"], "creator": ADMIN}
    assert users.call("POST", "/roles", body, users.admin).status_code == 201
    role = shown(users, name)
    assert role
    assert role["permissions"] == ["train:list"]


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({}, 'object has missing required properties (["creator","permissions","role_name"])'),
        ({"role_name": "x", "creator": "c"}, 'object has missing required properties (["permissions"])'),
        (
            {"role_name": 1, "permissions": ["train:all"], "creator": "c"},
            'instance type (integer) does not match any allowed primitive type (allowed: ["string"])',
        ),
        (
            {"role_name": "", "permissions": ["train:all"], "creator": "c"},
            'string "" is too short (length: 0, required minimum: 1)',
        ),
        (
            {"role_name": "x", "permissions": [], "creator": "c"},
            "array is too short: must have at least 1 elements but instance has 0 elements",
        ),
        (
            {"role_name": "x", "permissions": "train:all", "creator": "c"},
            'instance type (string) does not match any allowed primitive type (allowed: ["array"])',
        ),
    ],
)
def test_a_wrong_role_is_told_in_the_contracts_words(
    users: Driver, body: dict[str, Any], sentence: str
) -> None:
    answer = users.call("POST", "/roles", body, users.admin)
    assert (answer.status_code, answer.get_json()["message"]) == (400, sentence)


def test_an_unknown_permission_is_told_with_the_possible_ones(users: Driver) -> None:
    body = {"role_name": "x", "permissions": ["train:fly"], "creator": ADMIN}
    answer = users.call("POST", "/roles", body, users.admin)
    assert answer.status_code == 400
    assert (
        'instance value ("train:fly") not found in enum (possible values: ["train:all"'
        in answer.text.replace('\\"', '"')
    )


def test_users_lose_a_deleted_role_and_absent_names_are_ignored(users: Driver) -> None:
    kept, gone = users.role("train:list"), users.role("inference:list")
    person = users.person(roles=[kept, gone])
    answer = users.call("DELETE", "/roles", {"role_name_list": [gone, "never was"]}, users.admin)
    assert (answer.status_code, answer.data) == (204, b"")
    user = users.shown(person.username)
    assert (user["roles"], user["permissions"]) == ([kept], ["train:list"])


def test_the_default_role_cannot_be_deleted_and_nothing_else_goes_with_it(users: Driver) -> None:
    other = users.role("train:list")
    answer = users.call("DELETE", "/roles", {"role_name_list": [other, IT_OPERATOR]}, users.admin)
    assert (answer.status_code, answer.get_json()["message"]) == (400, "cannot delete default role")
    assert shown(users, other)


def test_the_default_role_cannot_be_weakened_nor_change_hands(users: Driver) -> None:
    weaker = {"role_name": IT_OPERATOR, "permissions": ["role:all"], "creator": ADMIN}
    assert users.call("POST", "/roles", weaker, users.admin).status_code == 400
    same = {"role_name": IT_OPERATOR, "permissions": sorted(EVERYTHING), "creator": ADMIN}
    assert users.call("POST", "/roles", same, users.admin).status_code == 201
    role = shown(users, IT_OPERATOR)
    assert role
    assert set(role["permissions"]) == EVERYTHING
    assert role["creator"] == ""


def test_without_role_all_one_sees_roles_that_one_has_or_created(users: Driver) -> None:
    person = users.person("role:list", "role:create")
    own = users.role("role:list", by=person)
    listed = users.call("GET", "/roles", who=person).get_json()["data"]["roles"]
    mine = users.shown(person.username)["roles"]
    assert {role["role_name"] for role in listed} == {own, *mine}


def test_without_role_list_one_sees_no_roles(users: Driver) -> None:
    assert users.call("GET", "/roles", who=users.person("user:all")).status_code == 403


def test_roles_come_page_by_page_newest_first(users: Driver) -> None:
    made = [users.role("train:list") for _ in range(5)]
    seen: list[str] = []
    path = "/roles?limit=2"
    while True:
        data = users.call("GET", path, who=users.admin).get_json()["data"]
        seen += [role["role_name"] for role in data["roles"]]
        if data["last_evaluated_key"] is None:
            break
        path = f"/roles?limit=2&last_evaluated_key={data['last_evaluated_key']}"
    assert seen[:5] == made[::-1]
    assert len(seen) == len(set(seen))
