"""/users and /users/me as the contract says."""

from typing import Any

import pytest

from tests.users.driver import ADMIN, Driver

NONE = "not_applicable"


def test_a_created_user_is_listed_without_a_password(users: Driver) -> None:
    role = users.role("inference:all", "checkpoint:list")
    body = {
        "username": "Åsa Öberg",
        "password": "seen nowhere",
        "roles": [role],
        "creator": ADMIN,
        "permissions": ["train:list"],
    }
    answer = users.call("POST", "/users", body, users.admin)
    assert (answer.status_code, answer.get_json()) == (201, {"statusCode": 201, "message": "Created"})
    assert users.shown("Åsa Öberg") == {
        "username": "Åsa Öberg",
        "roles": [role],
        "creator": ADMIN,
        "permissions": ["checkpoint:list", "inference:all", "train:list"],
        "password": "********",
    }


def test_no_parameter_reveals_a_password(users: Driver) -> None:
    person = users.person()
    for query in ("show_password=1", "show_password=true&username=" + person.username, "password=1"):
        text = users.call("GET", f"/users?{query}", who=users.admin).text
        assert person.password not in text
        assert "argon2" not in text


def test_replacing_a_user_changes_roles_and_password_and_ends_their_sessions(users: Driver) -> None:
    person = users.person()
    role = users.role("train:list")
    body = {"username": person.username, "password": "new", "roles": [role], "creator": ADMIN}
    assert users.call("POST", "/users", body, users.admin).status_code == 201
    assert users.call("GET", "/users", who=person).status_code == 401
    users.sign_in(person.username, "new")
    assert users.shown(person.username)["permissions"] == ["train:list"]


def test_unknown_roles_are_named(users: Driver) -> None:
    body = {"username": "x", "password": "x", "roles": ["nosuch"], "creator": ADMIN}
    answer = users.call("POST", "/users", body, users.admin)
    assert (answer.status_code, answer.get_json()["message"]) == (400, 'user roles "nosuch" not exist')


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"roles": []}, "array is too short: must have at least 1 elements but instance has 0 elements"),
        ({"password": ""}, 'string "" is too short (length: 0, required minimum: 1)'),
        (
            {"password": {"$ne": 1}},
            'instance type (object) does not match any allowed primitive type (allowed: ["string"])',
        ),
        (
            {"username": {"$gt": ""}},
            'instance type (object) does not match any allowed primitive type (allowed: ["string"])',
        ),
        (
            {"roles": [{"$ne": 1}]},
            'instance type (object) does not match any allowed primitive type (allowed: ["string"])',
        ),
    ],
)
def test_a_wrong_user_is_told_in_the_contracts_words(
    users: Driver, change: dict[str, Any], sentence: str
) -> None:
    body = {"username": "x", "password": "x", "roles": ["r"], "creator": ADMIN} | change
    answer = users.call("POST", "/users", body, users.admin)
    assert (answer.status_code, answer.get_json()["message"]) == (400, sentence)


def test_a_password_that_is_too_long_is_not_repeated(users: Driver) -> None:
    body = {"username": "x", "password": "secret" * 1000, "roles": ["r"], "creator": ADMIN}
    answer = users.call("POST", "/users", body, users.admin)
    assert answer.status_code == 400
    assert "secret" not in answer.text


@pytest.mark.parametrize("body", [b"", b"[]", b"7", b"{", b'"x"', b"null", b"\xff", b"[" * 100_000])
def test_a_body_that_is_no_json_object_is_a_bad_request(users: Driver, body: bytes) -> None:
    verdict = users.ask(
        {"x-api-key": "first-key-" + "0123456789abcdef" * 2, "Authorization": f"Bearer {users.admin.token}"}
    )
    headers = {"X-Internal-Token": verdict.headers["X-Internal-Token"]}
    answer = users.client.post("/users", data=body, headers=headers)
    assert answer.status_code == 400
    if body:
        assert answer.get_json()["message"] == "Invalid request body"


def test_everybody_sees_themselves_and_with_user_list_those_they_created(users: Driver) -> None:
    plain, lister = users.person("inference:list"), users.person("user:list", "user:create", "role:create")
    made = users.person("user:list", by=lister)
    assert users.names(plain) == {plain.username}
    assert users.names(lister) == {lister.username, made.username}
    assert users.names() >= {plain.username, lister.username, made.username}
    hidden = users.call("GET", f"/users?username={lister.username}", who=plain)
    assert (hidden.status_code, hidden.get_json()["data"]["users"]) == (200, [])


def test_users_come_page_by_page(users: Driver) -> None:
    made = [users.person(roles=["IT Operator"]).username for _ in range(3)]
    first = users.call("GET", "/users?limit=2", who=users.admin).get_json()["data"]
    assert [user["username"] for user in first["users"]] == made[:0:-1]
    assert first["previous_evaluated_key"] == NONE
    path = f"/users?limit=2&last_evaluated_key={first['last_evaluated_key']}"
    second = users.call("GET", path, who=users.admin).get_json()["data"]
    assert second["users"][0]["username"] == made[0]
    everything = users.call("GET", "/users?last_evaluated_key=not_applicable", who=users.admin).get_json()
    assert everything["data"]["last_evaluated_key"] == NONE


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=x", "last_evaluated_key=nonsense"])
def test_wrong_paging_is_a_bad_request(users: Driver, query: str) -> None:
    assert users.call("GET", f"/users?{query}", who=users.admin).status_code == 400


def test_deleting_users_ends_their_keys_and_absent_names_are_ignored(users: Driver) -> None:
    person = users.person()
    key = users.call("POST", "/users/me/api-keys", {"name": "mine"}, person).get_json()["data"]["api_key"][
        "key"
    ]
    assert users.call("GET", "/users", key=key).status_code == 200
    names = [person.username, "never was"]
    assert users.call("DELETE", "/users", {"user_name_list": names}, users.admin).status_code == 204
    assert users.call("GET", "/users", key=key).status_code == 403
    assert users.call("GET", "/users", who=person).status_code == 401


@pytest.mark.parametrize("names", [[], [""], "x", [None], None])
def test_a_wrong_list_of_users_to_delete_is_a_bad_request(users: Driver, names: Any) -> None:
    answer = users.call("DELETE", "/users", {"user_name_list": names}, users.admin)
    assert answer.status_code == 400


def test_what_a_deleted_user_created_falls_to_who_deleted_them(users: Driver) -> None:
    maker = users.person("user:create", "role:create", "inference:list")
    role = users.role("inference:list", by=maker)
    made = users.person(roles=[role], by=maker)
    users.call("DELETE", "/users", {"user_name_list": [maker.username]}, users.admin)
    assert users.shown(made.username)["creator"] == ADMIN
    listed = users.call("GET", f"/roles?role={role}", who=users.admin).get_json()["data"]["roles"]
    assert listed[0]["creator"] == ADMIN


def test_one_changes_ones_own_password_and_every_session_ends(users: Driver) -> None:
    person = users.person()
    other = users.sign_in(person.username, person.password)
    change = {"old": person.password, "new": "another"}
    assert users.call("PUT", "/users/me/password", change, person).status_code == 200
    for session in (person, other):
        assert users.call("GET", "/users", who=session).status_code == 401
        again = users.call("POST", "/auth/token", {"refresh_token": session.refresh_token})
        assert again.status_code == 401
    old = users.call("POST", "/auth/token", {"username": person.username, "password": person.password})
    assert old.status_code == 401
    users.sign_in(person.username, "another")


def test_a_wrong_old_password_changes_nothing(users: Driver) -> None:
    person = users.person()
    answer = users.call("PUT", "/users/me/password", {"old": "wrong", "new": "x"}, person)
    assert (answer.status_code, answer.get_json()["message"]) == (400, "the old password is not right")
    users.sign_in(person.username, person.password)


def test_a_changed_role_counts_at_once_without_signing_in_again(users: Driver) -> None:
    role = users.role("role:list")
    person = users.person(roles=[role])
    assert users.call("GET", "/roles", who=person).status_code == 200
    body = {"role_name": role, "permissions": ["train:list"], "creator": ADMIN}
    users.call("POST", "/roles", body, users.admin)
    assert users.call("GET", "/roles", who=person).status_code == 403


def test_other_services_can_ask_which_names_exist(users: Driver) -> None:
    from services.common.identity import make_service_token
    from services.users.parts import EXTENSION

    secret = users.app.extensions[EXTENSION].config.service_secret
    headers = {"X-Internal-Token": make_service_token("endpoints", secret)}
    body = {"usernames": [ADMIN, "nobody"], "roles": ["IT Operator", "nosuch"]}
    answer = users.client.post("/internal/names", json=body, headers=headers)
    assert answer.get_json() == {
        "missing_usernames": ["nobody"],
        "missing_roles": ["nosuch"],
        "roles_of": {ADMIN: ["IT Operator"]},
    }
    assert users.client.post("/internal/names", json=body).status_code == 401
