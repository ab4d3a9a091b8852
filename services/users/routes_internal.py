"""Routes for the gateway and the other services; `/internal/authenticate` is in fast_path.py."""

from typing import Any

from flask import Response, jsonify

from services.common.identity import for_services, open_to_all
from services.common.web import ServiceBlueprint
from services.users import schemas
from services.users.parts import parts

blp = ServiceBlueprint("internal", __name__, url_prefix="/internal")


@blp.route("/jwks.json")
@open_to_all
def jwks() -> Any:
    """The public keys that sign internal tokens."""
    return jsonify({"keys": parts().ring.published()})


@blp.route("/names", methods=["POST"])
@blp.arguments(schemas.Names)
@for_services
def names(wanted: dict[str, list[str]]) -> Any:
    """Which of these users and roles do not exist, and the roles of those users who do."""
    repository = parts().repository
    roles = list(dict.fromkeys(wanted["roles"]))
    known = {role["_id"] for role in repository.named_roles(roles)}
    roles_of = repository.roles_of(wanted["usernames"])
    return jsonify(
        missing_usernames=[name for name in dict.fromkeys(wanted["usernames"]) if name not in roles_of],
        roles_of=roles_of,
        missing_roles=[name for name in roles if name not in known],
    )


@blp.route("/audit", methods=["POST"])
@blp.arguments(schemas.NewAuditEntries)
@for_services
def audit(wanted: dict[str, list[dict[str, Any]]]) -> Response:
    """Keep what clients changed at another service."""
    parts().audit_log.add(wanted["entries"])
    return Response(status=204)
