"""/roles"""

from typing import Any

from flask import Response

from services.common.audit import concerning
from services.common.identity import current_caller, requires
from services.common.paging import next_key
from services.common.web import ServiceBlueprint
from services.users import granting, schemas
from services.users.parts import parts

blp = ServiceBlueprint("roles", __name__, description="Roles and what they permit")


@blp.route("/roles", methods=["POST"])
@blp.arguments(schemas.NewRole)
@blp.answers(201, message="role created")
@requires("role:create")
def create(wanted: dict[str, Any]) -> None:
    """Create or replace a role, with permissions that one holds."""
    concerning([wanted["role_name"]])
    caller = current_caller().name
    parts().repository.exclusively(lambda inside: granting.put_role(inside, caller, wanted))


@blp.route("/roles")
@blp.arguments(schemas.RoleQuery, location="query")
@blp.answers(200, schemas.Roles)
@requires("role:list")
def show(query: dict[str, Any]) -> dict[str, Any]:
    """Roles: all with role:all, otherwise those one created or has."""
    caller, limit = current_caller(), query["limit"]
    conditions: list[dict[str, Any]] = []
    if not caller.may("role:all"):
        conditions.append({"$or": [{"creator": caller.name}, {"_id": {"$in": list(caller.roles)}}]})
    if query["role"] is not None:
        conditions.append({"_id": query["role"]})
    found = parts().repository.roles(
        {"$and": conditions} if conditions else {}, limit, query["last_evaluated_key"]
    )
    return {"roles": found[:limit], "last_evaluated_key": next_key(found, limit, "created")}


@blp.route("/roles", methods=["DELETE"])
@blp.arguments(schemas.RoleNames)
@blp.answers(204)
@requires("role:delete")
def delete(wanted: dict[str, list[str]]) -> Response:
    """Delete roles; users lose them; names that no role has are ignored."""
    concerning(wanted["role_name_list"])
    caller = current_caller().name
    parts().repository.exclusively(
        lambda inside: granting.delete_roles(inside, caller, wanted["role_name_list"])
    )
    return Response(status=204)
