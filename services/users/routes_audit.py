"""GET /audit"""

from datetime import UTC, datetime
from typing import Any

from services.common.identity import requires
from services.common.paging import next_key
from services.common.web import ServiceBlueprint
from services.users import schemas
from services.users.parts import parts

blp = ServiceBlueprint("audit", __name__, description="Who did what")


@blp.route("/audit")
@blp.arguments(schemas.AuditQuery, location="query")
@blp.answers(200, schemas.AuditEntries)
@requires("user:all")
def show(query: dict[str, Any]) -> dict[str, Any]:
    """Entries newest first, filtered by equality and by time (`since`, `until`: epoch seconds)."""
    limit = query["limit"]
    found = parts().audit_log.entries(_filter(query), limit, query["last_evaluated_key"])
    return {"entries": found[:limit], "last_evaluated_key": next_key(found, limit, "at")}


def _filter(query: dict[str, Any]) -> dict[str, Any]:
    wanted: dict[str, Any] = {
        field: query[field]
        for field in ("actor", "action", "resource", "outcome", "address")
        if query[field] is not None
    }
    if query["name"] is not None:
        wanted["names"] = query["name"]
    for bound, operator in (("since", "$gte"), ("until", "$lt")):
        if query[bound] is not None:
            wanted.setdefault("at", {})[operator] = datetime.fromtimestamp(query[bound], UTC)
    return wanted
