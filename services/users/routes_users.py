"""/users"""

from typing import Any

from flask import Response

from services.common.audit import concerning
from services.common.identity import Caller, current_caller, requires, requires_identity
from services.common.paging import next_key
from services.common.web import ServiceBlueprint
from services.users import granting, schemas
from services.users.parts import Parts, parts
from services.users.passwords import check_length
from services.users.tokens import new_version

blp = ServiceBlueprint("users", __name__, description="Users, their roles and direct permissions")


@blp.route("/users", methods=["POST"])
@blp.arguments(schemas.NewUser)
@blp.answers(201, message="Created")
@requires("user:create")
def create(wanted: dict[str, Any]) -> None:
    """Create or replace a user, with roles and permissions that one holds."""
    concerning([wanted["username"]])
    made, caller = parts(), current_caller().name
    check_length(wanted["password"], made.config.passwords)
    secrets = {"password_hash": made.passwords.hash(wanted["password"]), "version": new_version()}
    _forget_the_former(made, wanted["username"])
    made.repository.exclusively(lambda inside: granting.put_user(inside, caller, wanted, secrets))


def _forget_the_former(made: Parts, username: str) -> None:
    """A new user of a former one's name: what called the former out of the house does so no more.

    Before the user is there, so that no job of theirs is told of. Raises Unavailable when it cannot be done.
    """
    repository, inference = made.repository, made.inference
    if inference is None or repository.heir_of_former_user(username) is None:
        return
    if repository.user(username) is None:
        inference.call("/internal/forget-webhooks", {"usernames": [username]})


@blp.route("/users")
@blp.arguments(schemas.UserQuery, location="query")
@blp.answers(200, schemas.Users)
@requires_identity
def show(query: dict[str, Any]) -> dict[str, Any]:
    """Users: all with user:all, those one created with user:list, oneself always."""
    repository, limit, key = parts().repository, query["limit"], query["last_evaluated_key"]
    conditions = _visible_to(current_caller())
    if query["username"] is not None:
        conditions.append({"_id": query["username"]})
    found = repository.users(
        {"$and": conditions} if conditions else {}, limit, None if key == schemas.NO_PAGE else key
    )
    held = repository.permissions_of(found[:limit])
    return {
        "users": [user | {"permissions": sorted(held[user["_id"]])} for user in found[:limit]],
        "previous_evaluated_key": schemas.NO_PAGE,
        "last_evaluated_key": next_key(found, limit, "created") or schemas.NO_PAGE,
    }


def _visible_to(caller: Caller) -> list[dict[str, Any]]:
    if caller.may("user:all"):
        return []
    if caller.may("user:list"):
        return [{"$or": [{"creator": caller.name}, {"_id": caller.name}]}]
    return [{"_id": caller.name}]


@blp.route("/users", methods=["DELETE"])
@blp.arguments(schemas.UserNames)
@blp.answers(204)
@requires("user:delete")
def delete(wanted: dict[str, list[str]]) -> Response:
    """Delete users with their sessions and keys; names that no user has are ignored."""
    concerning(wanted["user_name_list"])
    caller = current_caller().name
    parts().repository.exclusively(
        lambda inside: granting.delete_users(inside, caller, wanted["user_name_list"])
    )
    return Response(status=204)
