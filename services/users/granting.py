"""Who may give which permissions to whom, and who may change which users and roles.

Every function runs inside `Repository.exclusively` and judges by what MongoDB says at that moment, not by
the caller's token: a right that was taken away a moment ago gives nothing any more.
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
    NameTooAlike,
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
    found = Holder(username, repository.permissions_of([user])[username])
    if needs and not found.may(needs):
        raise Forbidden(f"this needs the permission {needs}")
    return found


def put_role(repository: Repository, username: str, wanted: Document) -> None:
    """Create or replace a role for the caller `username`."""
    caller = holder(repository, username, "role:create")
    _check_grant(caller, wanted["permissions"])
    name = wanted["role_name"]
    existing = repository.role(name)
    if existing and not caller.may("role:all") and existing["creator"] != caller.username:
        raise NotYours("role", name)
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
    try:
        repository.put_role(document)
    except DuplicateKeyError:
        raise NameTooAlike("role", name) from None
    _check_administrator_left(repository)


def delete_roles(repository: Repository, username: str, names: list[str]) -> None:
    """Delete all of the roles that exist, or none."""
    caller = holder(repository, username, "role:delete")
    for role in repository.named_roles(names):
        if not caller.may("role:all") and role["creator"] != caller.username:
            raise NotYours("role", role["_id"])
    if DEFAULT_ROLE in names:
        raise CannotDeleteDefaultRole
    repository.delete_roles(names)
    _check_administrator_left(repository)


def put_user(repository: Repository, username: str, wanted: Document, secrets: Document) -> None:
    """Create or replace a user; `secrets` holds the new password's hash and the new version."""
    caller = holder(repository, username, "user:create")
    name, roles = wanted["username"], list(dict.fromkeys(wanted["roles"]))
    existing = repository.user(name)
    if existing:
        _check_changeable(repository, caller, [existing])
    creator = _creator(repository, caller, wanted["creator"])
    found = {role["_id"]: role["permissions"] for role in repository.named_roles(roles)}
    granted = [permission for permissions in found.values() for permission in permissions]
    _check_grant(caller, [*wanted["permissions"], *granted])
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
    try:
        repository.put_user(document | secrets)
    except DuplicateKeyError:
        raise NameTooAlike("user", name) from None
    repository.end_sessions(name)
    _check_administrator_left(repository)


def delete_users(repository: Repository, username: str, names: list[str]) -> None:
    """Delete all of the users that exist, or none."""
    caller = holder(repository, username, "user:delete")
    existing = [user for name in dict.fromkeys(names) if (user := repository.user(name))]
    _check_changeable(repository, caller, existing)
    for user in existing:
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
