"""What other services ask of checkpoints."""

from typing import Any

from services.checkpoints.checkpoint import Viewer
from services.checkpoints.schemas import NamesOfType, Resolved, ResolveRequest, UsableNames
from services.checkpoints.wiring import current_parts
from services.common.identity import for_services
from services.common.paging import LARGEST_PAGE
from services.common.web import ServiceBlueprint

blp = ServiceBlueprint("internal", __name__, description="For the other services")


@blp.route("/internal/resolve", methods=["POST"])
@blp.arguments(ResolveRequest)
@blp.response(200, Resolved)
@for_services
def resolve(body: dict[str, Any]) -> dict[str, Any]:
    """The Active files of these types and names that the user may use, and those that are not there."""
    parts = current_parts()
    viewer = Viewer(body["username"], tuple(body["roles"]), body["see_all"])
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for checkpoint in parts.repository.find_usable(viewer, body["models"]):
        for file in checkpoint.files:
            found[checkpoint.type, file.name] = {
                "type": checkpoint.type,
                "name": file.name,
                "id": checkpoint.id,
                "s3_location": parts.storage.location(checkpoint.type, checkpoint.id),
                "bucket": parts.storage.bucket,
                "key": file.key,
                "size": file.size,
                "etag": file.etag,
                "sha256": file.sha256,
            }
    asked = [(kind, name) for kind, names in body["models"].items() for name in dict.fromkeys(names)]
    return {
        "models": [found[one] for one in asked if one in found],
        "missing": [{"type": kind, "name": name} for kind, name in asked if (kind, name) not in found],
    }


@blp.route("/internal/usable", methods=["POST"])
@blp.arguments(NamesOfType)
@blp.response(200, UsableNames)
@for_services
def usable(body: dict[str, Any]) -> dict[str, Any]:
    """The names of the Active files of a type that the user may use, newest first."""
    viewer = Viewer(body["username"], tuple(body["roles"]), body["see_all"])
    return {"names": current_parts().repository.usable_names(viewer, body["type"], LARGEST_PAGE)}
