"""Who may give which permissions to whom, and who may change which users and roles.

Every function runs inside `Repository.exclusively` and judges by what MongoDB says at that moment, not by
the caller's token: a right that was taken away a moment ago gives nothing any more.

What a caller may not see is for them as if it were not there: deleting it does nothing, and its name is taken
in the same words as one that is too like another.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pymongo.errors import DuplicateKeyError

from services.common.errors import Forbidden, Unauthorized
from services.common.identity import PERMISSIONS
from services.common.times import now
from services.users.errors import (
    ActingForOthers,
    CannotDeleteDefaultRole,
    CannotWeakenDefaultRole,
    LastAdministrator,
    NameTaken,
    NotYours,
    UnheldPermissions,
    UnknownRoles,
    UnknownUser,
)
from services.users.names import skeleton
from services.users.repository import DEFAULT_ROLE, EVERYTHING, Repository

Document = dict[str, Any]


@dataclass(frozen=True)
class Holder:
    """A user and what they hold."""

    username: str
    permissions: frozenset[str]
    roles: frozenset[str] = frozenset()

    def may(self, permission: str) -> bool:
        return not lacking(self.permissions, [permission])

    @property
    def is_administrator(self) -> bool:
        return all(self.may(permission) for permission in EVERYTHING)


def lacking(held: frozenset[str], wanted: Iterable[str]) -> list[str]:
    """Those of the wanted permissions that `held` does not grant; `R:all` grants every action of R."""
    return [
        permission
        for permission in wanted
        if permission not in held and f"{permission.split(':', 1)[0]}:all" not in held
    ]


def holder(repository: Repository, username: str, needs: str | None = None) -> Holder:
    """The caller as MongoDB knows them now. Raises Forbidden without the permission `needs`."""
    user = repository.user(username)
    if user is None:
        raise Unauthorized
    found = Holder(username, repository.permissions_of([user])[username], frozenset(user["roles"]))
    if needs and not found.may(needs):
        raise Forbidden(f"this needs the permission {needs}")
    return found


def put_role(repository: Repository, username: str, wanted: Document) -> None:
    """Create or replace a role for the caller `username`."""
    caller = holder(repository, username, "role:create")
    _check_grant(caller, wanted["permissions"])
    name = wanted["role_name"]
    existing = repository.role(name)
    hidden = existing is not None and not _sees_role(caller, existing)
    if existing and not hidden:
        _check_own_roles(caller, [existing])
    creator = _creator(repository, caller, wanted["creator"])
    if name == DEFAULT_ROLE:
        if lacking(frozenset(wanted["permissions"]), EVERYTHING):
            raise CannotWeakenDefaultRole
        return
    document = {
        "_id": name,
        "skeleton": skeleton(name),
        "permissions": _in_order(wanted["permissions"]),
        "creator": creator,
        "created": existing["created"] if existing else now(),
    }
    if hidden or (existing is None and _named_like_a_user(repository, caller, name)):
        raise NameTaken("role", name)
    try:
        repository.put_role(document)
    except DuplicateKeyError:
        raise NameTaken("role", name) from None
    _check_administrator_left(repository)


def delete_roles(repository: Repository, username: str, names: list[str]) -> None:
    """Delete all of the roles that the caller sees, or none."""
    caller = holder(repository, username, "role:delete")
    visible = [role for role in repository.named_roles(names) if _sees_role(caller, role)]
    if DEFAULT_ROLE in names:
        raise CannotDeleteDefaultRole
    _check_own_roles(caller, visible)
    repository.delete_roles([role["_id"] for role in visible])
    _check_administrator_left(repository)


def put_user(repository: Repository, username: str, wanted: Document, secrets: Document) -> None:
    """Create or replace a user; `secrets` holds the new password's hash and the new version."""
    caller = holder(repository, username, "user:create")
    name, roles = wanted["username"], list(dict.fromkeys(wanted["roles"]))
    existing = repository.user(name)
    hidden = existing is not None and not _sees_user(caller, existing)
    if existing and not hidden:
        _check_changeable(repository, caller, [existing])
    creator = _creator(repository, caller, wanted["creator"])
    found = {role["_id"]: role for role in repository.named_roles(roles)}
    _check_grant(caller, wanted["permissions"])
    _check_roles_given(caller, found.values())
    if unknown := [role for role in roles if role not in found]:
        raise UnknownRoles(unknown)
    document = {
        "_id": name,
        "skeleton": skeleton(name),
        "roles": roles,
        "permissions": _in_order(wanted["permissions"]),
        "creator": creator,
        "created": existing["created"] if existing else now(),
    }
    if hidden or (existing is None and _name_means_another(repository, caller, name)):
        raise NameTaken("user", name)
    try:
        repository.put_user(document | secrets)
    except DuplicateKeyError:
        raise NameTaken("user", name) from None
    repository.end_sessions(name)
    if existing is None:
        repository.delete_keys_bound_to(name)  # one that was made at the moment the last of this name went
    _check_administrator_left(repository)


def delete_users(repository: Repository, username: str, names: list[str]) -> None:
    """Delete all of the users that the caller sees, or none."""
    caller = holder(repository, username, "user:delete")
    existing = [user for name in dict.fromkeys(names) if (user := repository.user(name))]
    visible = [user for user in existing if _sees_user(caller, user)]
    _check_changeable(repository, caller, visible)
    for user in visible:
        repository.delete_user(user["_id"], heir=caller.username)
    _check_administrator_left(repository)


def check_may_act_as(repository: Repository, caller: Holder, name: str) -> None:
    """Who gets a key that acts as `name` must hold what `name` holds."""
    user = repository.user(name)
    if user is None:
        raise UnknownUser(name)
    _check_grant(caller, repository.permissions_of([user])[name])


def _check_grant(caller: Holder, wanted: Iterable[str]) -> None:
    if missing := lacking(caller.permissions, wanted):
        raise UnheldPermissions(missing)


def _check_roles_given(caller: Holder, roles: Iterable[Document]) -> None:
    """Whoever makes users learns whether a role exists, and of one that they do not see no more than that."""
    roles = list(roles)
    _check_grant(caller, [held for role in roles if _sees_role(caller, role) for held in role["permissions"]])
    if any(lacking(caller.permissions, role["permissions"]) for role in roles):
        raise UnheldPermissions()


def _sees_user(caller: Holder, user: Document) -> bool:
    return caller.may("user:all") or caller.username in {user["creator"], user["_id"]}


def _sees_role(caller: Holder, role: Document) -> bool:
    seen = role["_id"] == DEFAULT_ROLE or role["_id"] in caller.roles or role["creator"] == caller.username
    return seen or caller.may("role:all")


def _named_like_a_user(repository: Repository, caller: Holder, role: str) -> bool:
    """What is shared with a name is shared with its user and its role: nobody becomes the other."""
    user = repository.user_named_like(skeleton(role))
    return user is not None and not _sees_user(caller, user)


def _name_means_another(repository: Repository, caller: Holder, username: str) -> bool:
    """A role, or a user who was deleted: other services still know what was theirs by the name."""
    heir = repository.heir_of_former_user(username)
    if heir not in {None, caller.username} and not caller.may("user:all"):
        return True
    role = repository.role_named_like(skeleton(username))
    if role is None or caller.may("role:all"):
        return False
    return role["_id"] not in caller.roles and role["creator"] != caller.username


def _check_own_roles(caller: Holder, roles: list[Document]) -> None:
    """Without role:all one changes roles that one created."""
    for role in roles:
        if not caller.may("role:all") and role["creator"] != caller.username:
            raise NotYours("role", role["_id"])


def _check_changeable(repository: Repository, caller: Holder, users: list[Document]) -> None:
    """Without user:all one changes users that one created and that hold nothing more than oneself."""
    if caller.may("user:all"):
        return
    held = repository.permissions_of(users)
    for user in users:
        if user["creator"] != caller.username or lacking(caller.permissions, held[user["_id"]]):
            raise NotYours("user", user["_id"])


def _creator(repository: Repository, caller: Holder, named: str) -> str:
    if named in {"", caller.username}:
        return caller.username
    if not caller.may("user:all"):
        raise ActingForOthers
    if repository.user(named) is None:
        raise UnknownUser(named)
    return named


def _check_administrator_left(repository: Repository) -> None:
    if not repository.somebody_may("user:all"):
        raise LastAdministrator


def _in_order(permissions: Iterable[str]) -> list[str]:
    wanted = set(permissions)
    return [permission for permission in PERMISSIONS if permission in wanted]
