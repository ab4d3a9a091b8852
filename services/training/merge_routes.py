"""The public route that merges checkpoints."""

from typing import Any

from services.common.idempotency import create_once
from services.common.identity import current_caller, requires
from services.common.web import ServiceBlueprint
from services.training.schemas import MergeStarted, NewMerge
from services.training.wiring import current_parts

blp = ServiceBlueprint("merge", __name__, description="Merging checkpoints")


@blp.route("/inference/run-model-merge", methods=["POST"])
@blp.arguments(NewMerge)
@blp.answers(202, MergeStarted, "Merge in progress, please check the checkpoint later")
@requires("checkpoint:create")
def merge(body: dict[str, Any]) -> dict[str, Any]:
    """Merge two or three checkpoints into a new one, on a worker."""
    parts = current_parts()
    work = create_once(
        lambda made_id: parts.merging.start(current_caller(), body, made_id), parts.work.get, "created"
    )
    names = ("primary_model_name", "secondary_model_name", "tertiary_model_name")
    return {name: work["params"][name] for name in names} | {"checkpoint": work.get("checkpoint")}
