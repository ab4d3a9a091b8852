"""What GPU workers and the checkpoints service ask of the training service."""

from typing import Any

from flask import Response

from services.common.errors import Forbidden
from services.common.identity import current_caller, for_services, for_workers
from services.common.web import ServiceBlueprint
from services.training.schemas import (
    Attempt,
    CheckpointIds,
    Claim,
    Completion,
    Failure,
    Report,
    Saved,
    WantUploads,
)
from services.training.wiring import current_parts

blp = ServiceBlueprint("internal", __name__, url_prefix="/internal", description="Between processes")


def _attempt(body: dict[str, Any]) -> tuple[str, int]:
    """Whose attempt it is; a worker speaks for itself only."""
    if current_caller().claims["iss"] != body["worker_id"]:
        raise Forbidden
    return body["worker_id"], body.get("attempt", 0)


@blp.route("/claim", methods=["POST"])
@blp.arguments(Claim)
@for_workers
def claim(body: dict[str, Any]) -> dict[str, Any]:
    """Work for a worker, with an attempt number and a lease; null when nothing waits."""
    worker_id, _ = _attempt(body)
    return {"work": current_parts().running.claim(worker_id, body["instance_type"])}


@blp.route("/jobs/<work_id>/progress", methods=["POST"])
@blp.arguments(Report)
@for_workers
def progress(body: dict[str, Any], work_id: str) -> dict[str, Any]:
    """Progress; renews the lease. An attempt that is over gets 409."""
    parts = current_parts()
    stop = parts.running.report(work_id, *_attempt(body), body)
    return {"stop": stop, "lease_seconds": parts.config.lease_seconds}


@blp.route("/jobs/<work_id>/uploads", methods=["POST"])
@blp.arguments(WantUploads)
@for_workers
def uploads(body: dict[str, Any], work_id: str) -> dict[str, Any]:
    """Presigned URLs of the parts of files."""
    return {"uploads": current_parts().running.upload_urls(work_id, *_attempt(body), body["files"])}


@blp.route("/jobs/<work_id>/saved", methods=["POST"])
@blp.arguments(Saved)
@for_workers
def saved(body: dict[str, Any], work_id: str) -> Response:
    """A file is uploaded."""
    current_parts().running.saved(work_id, *_attempt(body), body["file"], body["step"])
    return Response(status=204)


@blp.route("/jobs/<work_id>/complete", methods=["POST"])
@blp.arguments(Completion)
@for_workers
def complete(body: dict[str, Any], work_id: str) -> Response:
    """The result is uploaded."""
    current_parts().running.complete(work_id, *_attempt(body), body["file"], body["stopped"], body["facts"])
    return Response(status=204)


@blp.route("/jobs/<work_id>/fail", methods=["POST"])
@blp.arguments(Failure)
@for_workers
def fail(body: dict[str, Any], work_id: str) -> Response:
    """The attempt ended without a result."""
    current_parts().running.fail(work_id, *_attempt(body), body["kind"], body["message"])
    return Response(status=204)


@blp.route("/jobs/<work_id>/release", methods=["POST"])
@blp.arguments(Attempt)
@for_workers
def release(body: dict[str, Any], work_id: str) -> Response:
    """The worker stops and gives the work back."""
    current_parts().running.release(work_id, *_attempt(body))
    return Response(status=204)


@blp.route("/work-using", methods=["POST"])
@blp.arguments(CheckpointIds)
@for_services
def work_using(body: dict[str, Any]) -> dict[str, Any]:
    """Which of these checkpoints waiting or running work needs."""
    return {"in_use": current_parts().work.uses(body["checkpoint_ids"])}
