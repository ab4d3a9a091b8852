"""Nobody gives what they do not have, and somebody always keeps user:all."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from services.users.parts import EXTENSION
from tests.users.driver import ADMIN, Driver, Person

IT_OPERATOR = "IT Operator"
MANAGER = ("role:create", "role:delete", "role:list", "user:create", "user:delete", "user:list")


def post_role(users: Driver, who: Person, name: str, *permissions: str, creator: str | None = None) -> int:
    body = {"role_name": name, "permissions": list(permissions), "creator": creator or who.username}
    return users.call("POST", "/roles", body, who).status_code


def post_user(
    users: Driver, who: Person, name: str, roles: list[str], *permissions: str, creator: str | None = None
) -> int:
    body = {
        "username": name,
        "password": "x",
        "roles": roles,
        "permissions": list(permissions),
        "creator": creator or who.username,
    }
    return users.call("POST", "/users", body, who).status_code


def at_once(*calls: Callable[[], int]) -> list[int]:
    """Run the calls at the same time."""
    together = threading.Barrier(len(calls))

    def run(call: Callable[[], int]) -> int:
        together.wait()
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


def exists(users: Driver, role: str) -> bool:
    return bool(users.call("GET", f"/roles?role={role}", who=users.admin).get_json()["data"]["roles"])


def holders_of_user_all(users: Driver) -> list[str]:
    found = users.app.extensions[EXTENSION].repository.users({}, 1000, None)
    held = users.app.extensions[EXTENSION].repository.permissions_of(found)
    return [name for name, permissions in held.items() if "user:all" in permissions]


# Granting


@pytest.mark.parametrize("wanted", ["user:all", "role:all", "checkpoint:list", "train:all"])
def test_a_role_with_an_unheld_permission_cannot_be_made(users: Driver, wanted: str) -> None:
    manager = users.person(*MANAGER, "inference:all")
    assert post_role(users, manager, f"strong-{wanted[:4]}", wanted) == 403
    assert post_role(users, manager, f"strong-{wanted[:4]}", "inference:list", wanted) == 403
    answer = users.call("GET", f"/roles?role=strong-{wanted[:4]}", who=users.admin)
    assert answer.get_json()["data"]["roles"] == []


def test_all_of_a_resource_grants_its_actions_but_not_the_other_way_round(users: Driver) -> None:
    manager = users.person(*MANAGER, "inference:all")
    assert post_role(users, manager, "some-inference", "inference:list", "inference:delete") == 201
    actions = [f"checkpoint:{action}" for action in ("list", "create", "update", "delete")]
    single = users.person(*MANAGER, *actions)
    assert post_role(users, single, "all-checkpoints", "checkpoint:all") == 403


def test_a_role_cannot_be_strengthened_by_replacing_it(users: Driver) -> None:
    manager = users.person(*MANAGER, "inference:list")
    own = users.role("inference:list", by=manager)
    assert post_role(users, manager, own, "inference:list", "user:all") == 403
    assert post_role(users, manager, own, "user:create") == 201


def test_the_role_that_one_has_cannot_be_replaced_by_oneself(users: Driver) -> None:
    manager = users.person(*MANAGER)
    (own,) = users.shown(manager.username)["roles"]
    assert post_role(users, manager, own, *MANAGER) == 403
    assert post_role(users, manager, IT_OPERATOR, *MANAGER) == 403


def test_a_user_cannot_be_given_a_stronger_role_or_permission(users: Driver) -> None:
    manager = users.person(*MANAGER)
    strong, weak = users.role("checkpoint:all"), users.role("user:list")
    assert post_user(users, manager, "accomplice", [strong]) == 403
    assert post_user(users, manager, "accomplice", [weak, IT_OPERATOR]) == 403
    assert post_user(users, manager, "accomplice", [weak], "inference:list") == 403
    assert "accomplice" not in users.names()
    assert post_user(users, manager, "accomplice", [weak], "user:delete") == 201


def test_user_all_alone_does_not_give_other_permissions(users: Driver) -> None:
    manager = users.person("user:all")
    assert post_user(users, manager, "puppet", [IT_OPERATOR]) == 403
    assert post_user(users, manager, manager.username, [IT_OPERATOR]) == 403


def test_a_stronger_or_foreign_user_can_be_neither_overwritten_nor_deleted(users: Driver) -> None:
    manager = users.person(*MANAGER)
    weak = users.role("user:list")
    foreign, mine = users.person("user:list"), users.person(roles=[weak], by=manager)
    for victim in (foreign.username, ADMIN):
        assert post_user(users, manager, victim, [weak]) == 400
        body = {"user_name_list": [victim]}
        assert users.call("DELETE", "/users", body, manager).status_code == 204
    assert users.names() >= {foreign.username, mine.username, ADMIN}
    users.sign_in(foreign.username, foreign.password)
    # What one created and somebody made stronger since is out of reach too.
    assert post_user(users, users.admin, mine.username, [IT_OPERATOR], creator=manager.username) == 201
    assert post_user(users, manager, mine.username, [weak]) == 403
    body = {"user_name_list": [mine.username]}
    assert users.call("DELETE", "/users", body, manager).status_code == 403


def test_without_role_all_foreign_roles_cannot_be_deleted(users: Driver) -> None:
    manager = users.person(*MANAGER)
    foreign, own = users.role("user:list"), users.role("user:list", by=manager)
    (had,) = users.shown(manager.username)["roles"]
    body = {"role_name_list": [own, had]}
    assert users.call("DELETE", "/roles", body, manager).status_code == 403
    assert exists(users, own)
    body = {"role_name_list": [own, foreign]}
    assert users.call("DELETE", "/roles", body, manager).status_code == 204
    assert not exists(users, own)
    assert exists(users, foreign)


def test_what_one_may_not_see_is_as_if_it_were_not_there(users: Driver) -> None:
    """A stronger, a weaker and a look-alike name are refused in the same words; nothing tells who is who."""
    manager = users.person(*MANAGER)
    weak, strong = users.person("user:list"), users.person("user:all", "train:all")
    told = set()
    for name in (weak.username, strong.username, ADMIN, ADMIN.upper()):
        body = {"username": name, "password": "x", "roles": [IT_OPERATOR], "creator": ""}
        assert users.call("POST", "/users", body, manager).status_code == 403
        body["roles"] = users.shown(manager.username)["roles"]
        answer = users.call("POST", "/users", body, manager)
        assert answer.status_code == 400
        told.add(answer.text.replace(name, "NAME"))
    assert len(told) == 1
    users.sign_in(weak.username, weak.password)
    hidden = users.role("user:list")
    for name in (hidden, hidden.upper()):
        body = {"role_name": name, "permissions": ["user:list"], "creator": ""}
        answer = users.call("POST", "/roles", body, manager)
        assert answer.status_code == 400
        told.add(answer.text.replace(name, "NAME").replace("role", "user"))
    assert len(told) == 1


def test_of_a_role_that_one_does_not_see_one_learns_no_permissions(users: Driver) -> None:
    manager = users.person(*MANAGER)
    hidden = users.role("checkpoint:all", "train:all")
    body = {"username": "curious", "password": "x", "roles": [hidden], "creator": ""}
    answer = users.call("POST", "/users", body, manager)
    assert answer.status_code == 403
    assert "train" not in answer.text


def test_naming_somebody_else_as_creator_needs_user_all(users: Driver) -> None:
    manager = users.person(*MANAGER)
    weak = users.role("user:list")
    assert post_role(users, manager, "as-admin", "user:list", creator=ADMIN) == 403
    assert post_user(users, manager, "as-admin", [weak], creator=ADMIN) == 403
    assert post_role(users, users.admin, "for-manager", "user:list", creator=manager.username) == 201
    assert post_role(users, users.admin, "for-nobody", "user:list", creator="nobody at all") == 400
    listed = users.call("GET", "/roles?role=for-manager", who=users.admin).get_json()["data"]["roles"]
    assert listed[0]["creator"] == manager.username


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/roles", {"role_name": "x", "permissions": ["inference:list"], "creator": "me"}),
        ("DELETE", "/roles", {"role_name_list": ["x"]}),
        ("POST", "/users", {"username": "x", "password": "x", "roles": ["x"], "creator": "me"}),
        ("DELETE", "/users", {"user_name_list": ["x"]}),
        ("GET", "/roles", None),
        ("GET", "/audit", None),
        ("GET", "/api-keys", None),
        ("POST", "/api-keys", {"name": "x"}),
        ("DELETE", "/api-keys", {"api_key_id_list": ["x"]}),
    ],
)
def test_a_call_without_its_right_is_forbidden(
    users: Driver, method: str, path: str, body: dict[str, Any] | None
) -> None:
    answer = users.call(method, path, body, users.person("inference:all"))
    assert answer.status_code == 403


def test_a_right_that_was_just_taken_away_grants_nothing_even_with_an_old_internal_token(
    users: Driver,
) -> None:
    manager = users.person(*MANAGER, "inference:list")
    verdict = users.ask(
        {"x-api-key": "first-key-" + "0123456789abcdef" * 2, "Authorization": f"Bearer {manager.token}"}
    )
    old = {"X-Internal-Token": verdict.headers["X-Internal-Token"]}
    (role,) = users.shown(manager.username)["roles"]
    assert post_role(users, users.admin, role, "inference:list") == 201
    body = {"role_name": "too-late", "permissions": ["inference:list"], "creator": manager.username}
    assert users.client.post("/roles", json=body, headers=old).status_code == 403
    users.call("DELETE", "/users", {"user_name_list": [manager.username]}, users.admin)
    assert users.client.post("/roles", json=body, headers=old).status_code == 401


# Names


def test_nobody_becomes_a_role_or_a_user_of_the_other_kind_by_its_name(users: Driver) -> None:
    """What is shared with a name is shared with the role and the user of that name."""
    manager = users.person(*MANAGER)
    (own,) = users.shown(manager.username)["roles"]
    hidden, foreign = users.role("train:all"), users.person("user:list").username
    for name in (hidden, hidden.upper()):
        assert post_user(users, manager, name, [own]) == 400
    assert post_user(users, manager, own, [own]) == 201
    for name in (foreign, ADMIN):
        assert post_role(users, manager, name, "user:list") == 400
    assert post_role(users, manager, manager.username, "user:list") == 201
    assert post_user(users, users.admin, hidden, [own]) == 201


def test_the_name_of_a_deleted_user_is_for_those_who_could_have_been_them(users: Driver) -> None:
    """Jobs and checkpoints are known by their owner's name."""
    manager = users.person(*MANAGER)
    (own,) = users.shown(manager.username)["roles"]
    gone, mine = users.person("user:list").username, users.person(roles=[own], by=manager).username
    users.call("DELETE", "/users", {"user_name_list": [gone]}, users.admin)
    users.call("DELETE", "/users", {"user_name_list": [mine]}, manager)
    assert post_user(users, manager, gone, [own]) == 400
    assert post_user(users, manager, mine, [own]) == 201
    assert post_user(users, users.admin, gone, [own]) == 201


# The last administrator


def test_the_last_administrator_stays_whatever_is_tried(new_users: Driver) -> None:
    users, admin = new_users, new_users.admin
    weak = users.role("inference:list")
    tries = [
        lambda: users.call("DELETE", "/users", {"user_name_list": [ADMIN]}, admin).status_code,
        lambda: post_user(users, admin, ADMIN, [weak]),
        lambda: users.call("DELETE", "/roles", {"role_name_list": [IT_OPERATOR]}, admin).status_code,
        lambda: post_role(users, admin, IT_OPERATOR, "inference:list"),
    ]
    assert [attempt() for attempt in tries] == [400] * 4
    assert users.shown(ADMIN)["roles"] == [IT_OPERATOR]
    assert users.call("GET", "/users", who=admin).status_code == 200


def test_a_role_that_alone_carries_user_all_can_be_neither_weakened_nor_deleted(new_users: Driver) -> None:
    users = new_users
    chiefs = users.role("user:all", "role:all", "inference:list")
    chief = users.person(roles=[chiefs])
    body = {"user_name_list": [ADMIN]}
    assert users.call("DELETE", "/users", body, chief).status_code == 204
    assert post_role(users, chief, chiefs, "role:all") == 400
    assert users.call("DELETE", "/roles", {"role_name_list": [chiefs]}, chief).status_code == 400
    assert holders_of_user_all(users) == [chief.username]


def test_two_administrators_who_delete_each_other_at_once_leave_one(new_users: Driver) -> None:
    users = new_users
    for _ in range(5):
        left = users.sign_in(ADMIN, "again") if "again" in users.admin.password else users.admin
        right = users.person(roles=[IT_OPERATOR], by=left)

        def delete(who: Person, whom: Person) -> Callable[[], int]:
            body = {"user_name_list": [whom.username]}
            return lambda: users.call("DELETE", "/users", body, who).status_code

        statuses = at_once(delete(left, right), delete(right, left))
        (winner,) = holders_of_user_all(users)
        assert sorted(statuses)[0] == 204
        assert sorted(statuses)[1] in {400, 401}
        users.admin = left if winner == left.username else right


def test_all_administrators_who_weaken_themselves_at_once_leave_one(new_users: Driver) -> None:
    users = new_users
    weak = users.role("inference:list")
    people = [users.admin, *(users.person(roles=[IT_OPERATOR]) for _ in range(3))]
    statuses = at_once(*(lambda who=who: post_user(users, who, who.username, [weak]) for who in people))
    assert sorted(statuses) == [201, 201, 201, 400]
    assert len(holders_of_user_all(users)) == 1


def test_a_user_who_is_strengthened_while_being_overwritten_is_never_taken_over(users: Driver) -> None:
    manager = users.person(*MANAGER)
    weak = users.role("user:list")
    for _ in range(5):
        victim = users.person(roles=[weak], by=manager)
        statuses = at_once(
            lambda victim=victim: post_user(
                users, users.admin, victim.username, [IT_OPERATOR], creator=manager.username
            ),
            lambda victim=victim: post_user(users, manager, victim.username, [weak]),
        )
        assert statuses[0] == 201
        assert statuses[1] in {201, 403}
        # Either order leaves the administrator's user: the weak overwrite came before it or was refused.
        assert users.shown(victim.username)["roles"] == [IT_OPERATOR]


def test_two_instances_share_the_guard(new_users: Driver) -> None:
    other = Driver.of(new_users.app.extensions[EXTENSION].config)
    weak = new_users.role("inference:list")
    right = new_users.person(roles=[IT_OPERATOR])
    statuses = at_once(
        lambda: post_user(new_users, new_users.admin, ADMIN, [weak]),
        lambda: post_user(other, right, right.username, [weak]),
    )
    assert sorted(statuses) == [201, 400]
    assert len(holders_of_user_all(new_users)) == 1
