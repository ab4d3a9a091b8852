"""What GPU workers and the endpoints service ask of the inference service."""

from typing import Any

from flask import Response, current_app

from services.common.errors import Forbidden
from services.common.identity import current_caller, for_services, for_workers
from services.common.web import ServiceBlueprint
from services.inference.context import Context
from services.inference.worker_schemas import (
    Attempt,
    CheckpointIds,
    Claim,
    Completion,
    EndpointDeleted,
    EndpointNames,
    Failure,
    FormerUsers,
    PreviewReport,
    ProgressReport,
    Upcoming,
    WantUploads,
)

blueprint = ServiceBlueprint("internal", __name__, url_prefix="/internal", description="Between processes")


def _parts() -> Context:
    context: Context = current_app.extensions["inference"]
    return context


def _attempt(body: dict[str, Any]) -> tuple[str, int]:
    """Whose attempt it is; a worker speaks for itself only."""
    if current_caller().claims["iss"] != body["worker_id"]:
        raise Forbidden
    return body["worker_id"], body.get("attempt", 0)


@blueprint.route("/claim", methods=["POST"])
@blueprint.arguments(Claim)
@for_workers
def claim(body: dict[str, Any]) -> dict[str, Any]:
    """Jobs for a worker, each with an attempt number and a lease."""
    worker_id, _ = _attempt(body)
    wanted = (body["endpoints"], body["warm"], body["room"], body["pixels"])
    return {"jobs": _parts().running.claim(worker_id, *wanted)}


@blueprint.route("/upcoming", methods=["POST"])
@blueprint.arguments(Upcoming)
@for_workers
def upcoming(body: dict[str, Any]) -> dict[str, Any]:
    """Files that the next jobs in line need: a worker may fetch them while it computes."""
    _attempt(body)
    return {"files": _parts().running.upcoming(body["endpoints"])}


@blueprint.route("/jobs/<job_id>/progress", methods=["POST"])
@blueprint.arguments(ProgressReport)
@for_workers
def progress(body: dict[str, Any], job_id: str) -> dict[str, Any]:
    """Progress; renews the lease. An attempt that is over gets 409."""
    _parts().running.report(job_id, *_attempt(body), body)
    return {"cancel": False, "lease_seconds": _parts().config.lease_seconds}


@blueprint.route("/jobs/<job_id>/preview", methods=["POST"])
@blueprint.arguments(PreviewReport)
@for_workers
def preview(body: dict[str, Any], job_id: str) -> dict[str, Any]:
    """A small picture of what is being made; renews the lease."""
    _parts().previews.take(job_id, *_attempt(body), body)
    return {"cancel": False, "lease_seconds": _parts().config.lease_seconds}


@blueprint.route("/jobs/<job_id>/uploads", methods=["POST"])
@blueprint.arguments(WantUploads)
@for_workers
def uploads(body: dict[str, Any], job_id: str) -> dict[str, Any]:
    """Presigned PUT URLs for results."""
    return {"urls": _parts().running.upload_urls(job_id, *_attempt(body), body["files"])}


@blueprint.route("/jobs/<job_id>/complete", methods=["POST"])
@blueprint.arguments(Completion)
@for_workers
def complete(body: dict[str, Any], job_id: str) -> Response:
    """The results are in S3."""
    _parts().running.complete(job_id, *_attempt(body), body["images"], body["timings"])
    return Response(status=204)


@blueprint.route("/jobs/<job_id>/fail", methods=["POST"])
@blueprint.arguments(Failure)
@for_workers
def fail(body: dict[str, Any], job_id: str) -> Response:
    """The attempt ended without results."""
    _parts().running.fail(job_id, *_attempt(body), body["kind"], body["message"])
    return Response(status=204)


@blueprint.route("/jobs/<job_id>/release", methods=["POST"])
@blueprint.arguments(Attempt)
@for_workers
def release(body: dict[str, Any], job_id: str) -> Response:
    """The worker stops and gives the job back."""
    _parts().running.release(job_id, *_attempt(body))
    return Response(status=204)


@blueprint.route("/backlog", methods=["POST"])
@blueprint.arguments(EndpointNames)
@for_services
def backlog(body: dict[str, Any]) -> dict[str, Any]:
    """How many jobs wait and run at each endpoint."""
    return _parts().line.backlog(body["endpoints"])


@blueprint.route("/jobs-using", methods=["POST"])
@blueprint.arguments(CheckpointIds)
@for_services
def jobs_using(body: dict[str, Any]) -> dict[str, Any]:
    """Which of these checkpoints a waiting or running job needs."""
    return {"in_use": _parts().jobs.using(body["checkpoint_ids"])}


@blueprint.route("/endpoint-deleted", methods=["POST"])
@blueprint.arguments(EndpointDeleted)
@for_services
def endpoint_deleted(body: dict[str, Any]) -> Response:
    """Waiting jobs of an endpoint move on."""
    _parts().endpoint_end.move_jobs(body["name"], body["roles"], body["endpoint_type"])
    return Response(status=204)


@blueprint.route("/forget-webhooks", methods=["POST"])
@blueprint.arguments(FormerUsers)
@for_services
def forget_webhooks(body: dict[str, Any]) -> Response:
    """Whoever had these names before is not to hear of the jobs of whoever gets them now."""
    _parts().webhook_records.remove_of(body["usernames"])
    return Response(status=204)
