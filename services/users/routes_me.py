"""/users/me: one's own password and keys."""

from typing import Any

from flask import Response

from services.common.audit import client_address, concerning
from services.common.errors import Unauthorized
from services.common.idempotency import create_once
from services.common.identity import current_caller, requires_identity
from services.common.paging import PageQuery, next_key
from services.common.web import ServiceBlueprint
from services.users import schemas
from services.users.api_keys import make_own_key
from services.users.errors import WrongOldPassword
from services.users.parts import parts
from services.users.passwords import check_length
from services.users.tokens import new_version

blp = ServiceBlueprint("me", __name__, description="What every user does for themselves")


@blp.route("/users/me/password", methods=["PUT"])
@blp.arguments(schemas.PasswordChange)
@blp.answers(200, message="password changed")
@requires_identity
def change_password(wanted: dict[str, str]) -> None:
    """Change one's own password; every session of the user ends."""
    made, name = parts(), current_caller().name
    check_length(wanted["new"], made.config.passwords)
    try:
        user = made.sessions.check_password(name, wanted["old"], client_address())
    except Unauthorized:
        raise WrongOldPassword from None
    new_hash = made.passwords.hash(wanted["new"])
    if not made.repository.set_password(name, user["password_hash"], new_hash, new_version()):
        raise WrongOldPassword
    made.repository.end_sessions(name)


@blp.route("/users/me/api-keys", methods=["POST"])
@blp.arguments(schemas.MyNewApiKey)
@blp.answers(201, schemas.ApiKeyMade, message="Created")
@requires_identity
def create_key(wanted: dict[str, Any]) -> dict[str, Any]:
    """Make a key that acts as oneself, shown this once: a repeat (`Idempotency-Key`) has `key: null`."""
    made, caller = parts(), current_caller()
    key = create_once(
        lambda key_id: make_own_key(
            made.repository, made.credentials, key_id, caller.name, wanted, caller.key_id
        ),
        made.credentials.api_key,
        "created",
    )
    concerning([key["_id"]])
    return {"api_key": {"key": None} | key}


@blp.route("/users/me/api-keys")
@blp.arguments(PageQuery, location="query")
@blp.answers(200, schemas.ApiKeys)
@requires_identity
def show_keys(query: dict[str, Any]) -> dict[str, Any]:
    """The keys that act as oneself, newest first."""
    limit = query["limit"]
    found = parts().credentials.api_keys(current_caller().name, limit, query["last_evaluated_key"])
    return {"api_keys": found[:limit], "last_evaluated_key": next_key(found, limit, "created")}


@blp.route("/users/me/api-keys", methods=["DELETE"])
@blp.arguments(schemas.ApiKeyIds)
@blp.answers(204)
@requires_identity
def delete_keys(wanted: dict[str, list[str]]) -> Response:
    """Delete one's own keys; other ids are ignored."""
    concerning(wanted["api_key_id_list"])
    parts().credentials.delete_api_keys(wanted["api_key_id_list"], current_caller().name)
    return Response(status=204)
