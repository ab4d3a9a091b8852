"""/api-keys"""

from typing import Any

from flask import Response

from services.common.audit import concerning
from services.common.idempotency import create_once
from services.common.identity import current_caller, requires
from services.common.paging import PageQuery, next_key
from services.common.web import ServiceBlueprint
from services.users import schemas
from services.users.api_keys import make_key
from services.users.parts import parts

blp = ServiceBlueprint("api-keys", __name__, description="Keys of client applications")


@blp.route("/api-keys", methods=["POST"])
@blp.arguments(schemas.NewApiKey)
@blp.answers(201, schemas.ApiKeyMade, message="Created")
@requires("user:all")
def create(wanted: dict[str, Any]) -> dict[str, Any]:
    """Make a key; this answer is the only one that shows it: a repeat (`Idempotency-Key`) has `key: null`."""
    made, caller = parts(), current_caller().name
    key = create_once(
        lambda key_id: make_key(made.repository, made.credentials, key_id, caller, wanted),
        made.credentials.api_key,
        "created",
    )
    concerning([key["_id"]])
    return {"api_key": {"key": None} | key}


@blp.route("/api-keys")
@blp.arguments(PageQuery, location="query")
@blp.answers(200, schemas.ApiKeys)
@requires("user:all")
def show(query: dict[str, Any]) -> dict[str, Any]:
    """All keys, newest first."""
    limit = query["limit"]
    found = parts().credentials.api_keys(None, limit, query["last_evaluated_key"])
    return {"api_keys": found[:limit], "last_evaluated_key": next_key(found, limit, "created")}


@blp.route("/api-keys", methods=["DELETE"])
@blp.arguments(schemas.ApiKeyIds)
@blp.answers(204)
@requires("user:all")
def delete(wanted: dict[str, list[str]]) -> Response:
    """Delete keys; ids that no key has are ignored."""
    concerning(wanted["api_key_id_list"])
    parts().credentials.delete_api_keys(wanted["api_key_id_list"])
    return Response(status=204)
