"""What the training service asks of data sets."""

from typing import Any

from services.common.identity import for_services
from services.common.web import ServiceBlueprint
from services.datasets.presentation import resolved
from services.datasets.repository import Viewer
from services.datasets.schemas import Resolved, ResolveRequest
from services.datasets.wiring import current_parts

blp = ServiceBlueprint("internal", __name__, description="For the other services")


@blp.route("/internal/datasets/resolve", methods=["POST"])
@blp.arguments(ResolveRequest)
@blp.response(200, Resolved)
@for_services
def resolve(body: dict[str, Any]) -> dict[str, Any]:
    """The data sets of these names that the user may see, with their good pictures."""
    parts = current_parts()
    viewer = Viewer(body["username"], tuple(body["roles"]), body["see_all"])
    found = {one["name"]: one for one in parts.repository.find_named(body["names"], viewer)}
    return {
        "datasets": [resolved(one, parts.repository.items(one["_id"])) for one in found.values()],
        "missing": [name for name in dict.fromkeys(body["names"]) if name not in found],
    }
