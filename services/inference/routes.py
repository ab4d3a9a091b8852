"""What clients do with inference jobs."""

import json
from functools import partial
from typing import Any

from flask import Response, current_app, g, request

from services.common.envelope import answer, failure
from services.common.errors import ApiError, BadRequest
from services.common.identity import current_caller, requires
from services.common.paging import next_key
from services.common.web import ServiceBlueprint, read_json_object
from services.common.worker import can_take_socket
from services.inference.awaiting import Answer, Awaiting
from services.inference.current import current_parts, owner_filter, visible_job
from services.inference.errors import AlreadyFinished, QuotaExceeded, StillRunning, TooManyStreams
from services.inference.job_view import created_view, history_view, job_view, started_view, webhook_secret
from services.inference.records import Job
from services.inference.sagemaker.repository import BACKEND as SAGEMAKER
from services.inference.schemas import (
    ABOUT_THE_JOB,
    CreatedShape,
    CreateInference,
    DeleteInferences,
    JobListShape,
    JobShape,
    ListInferences,
    StartInference,
    brings_parameters,
)
from services.inference.states import Status
from services.inference.waiting import NO_PLACE

blueprint = ServiceBlueprint("inferences", __name__, description="Inference jobs")


def _shown(job: Job) -> dict[str, Any]:
    parts = current_parts()
    return job_view(job, parts.storage, parts.waiting.place(job)) | {"history": history_view(job)}


@blueprint.route("/inferences", methods=["POST"])
@blueprint.arguments(CreateInference)
@blueprint.alt_response(202, description="The job came with its parameters and waits for a worker")
@blueprint.answers(201, CreatedShape, "inference created")
@requires("inference:create")
def create_inference(wanted: dict[str, Any]) -> dict[str, Any] | Response:
    """Create a job; one that comes with its parameters is started as well."""
    parts = current_parts()
    text = _parameters_of(wanted)
    job = parts.creation.create(wanted | {"request_id": g.request_id}, current_caller())
    if text is None:
        return created_view(job, parts.storage)
    return _start_inline(job, text)


def _start_inline(job: Job, text: str) -> Response:
    """Start a job with its parameters; one that may not start is not kept: nobody was told its id."""
    parts = current_parts()
    if job["status"] == Status.CREATED:  # else a repeat: the first call's parameters stay
        parts.storage.write_parameters(job, text)
    try:
        return _start(job, told_once=webhook_secret(job))
    except (BadRequest, QuotaExceeded):
        parts.deletion.delete([job["_id"]], owner=None, actor=current_caller().name)
        raise


def _parameters_of(wanted: dict[str, Any]) -> str | None:
    """The generation parameters inside a creating body as JSON, None when they are uploaded later."""
    if not brings_parameters({name: value for name, value in wanted.items() if value is not None}):
        return None
    text = wanted["payload_string"]
    if text is None:
        return json.dumps({name: value for name, value in wanted.items() if name not in ABOUT_THE_JOB})
    if read_json_object(text) is None:
        raise BadRequest("payload_string must be valid json string")
    return str(text)


@blueprint.route("/inferences/<job_id>/start", methods=["PUT"])
@blueprint.arguments(StartInference)
@blueprint.alt_response(202, description="An Async job waits for a worker")
@blueprint.answers(200, JobShape)
@requires("inference:create")
def start_inference(wanted: dict[str, Any], job_id: str) -> Response:
    """Start a job: Async answers at once, Real-time with the finished job."""
    job = visible_job(job_id)
    current_parts().creation.check_priority(wanted["priority"], current_caller())
    return _start(job, wanted["priority"])


def _start(job: Job, priority: int | None = None, told_once: dict[str, Any] | None = None) -> Response:
    """`told_once` is for the answer to a job's creation alone."""
    parts, beside = current_parts(), told_once or {}
    job = parts.start.start(job, current_caller().name, priority)
    if job["inference_type"] == "Async":
        started = started_view(job, parts.storage)["inference"] | beside
        return answer(202, "inference started", {"inference": started})
    if job.get("backend") == SAGEMAKER:
        # The invocation is made in this process; whoever waits for its end holds no connection meanwhile.
        parts.sagemaker.submission.submit(job["endpoint"])
    return _finished(job, beside)


def _finished(job: Job, beside: dict[str, Any]) -> Response:
    """The finished Real-time job, once it is: the connection is given to the thread of all streams."""
    parts, app, request_id = current_parts(), current_app._get_current_object(), g.request_id  # type: ignore[attr-defined]
    job_id = job["_id"]
    if not can_take_socket(request.environ):
        return answer(200, "OK", _shown(parts.start.wait(job_id)) | beside)

    def render() -> Response:
        with app.app_context():
            try:
                response = answer(200, "OK", _shown(parts.start.finished(job_id)) | beside)
            except ApiError as error:
                response = failure(error.status, error.message, error.errors, error.headers)
        response.headers["X-Request-Id"] = request_id
        return response

    make = partial(Answer, render=render, seconds=parts.start.wait_seconds)
    try:
        waiting = parts.streams.open(job_id, current_caller().name, make)
    except TooManyStreams:
        raise StillRunning from None
    # Read again: what happens from here on is heard.
    standing = parts.jobs.find(job_id, owner=None) or {"status": Status.DELETED}
    return Response(Awaiting(parts.streams, waiting, standing, request.environ))


@blueprint.route("/inferences/<job_id>", methods=["GET"])
@blueprint.answers(200, JobShape)
@requires("inference:list")
def get_inference(job_id: str) -> dict[str, Any] | Response:
    """One job, with presigned URLs of its results; older clients ask for an endpoint's deployment here."""
    parts, caller = current_parts(), current_caller()
    job = parts.jobs.find(job_id, owner_filter(caller))
    if job is not None:
        return _shown(job)
    return answer(200, "OK", parts.deployments.shown(job_id, caller))


@blueprint.route("/inferences", methods=["GET"])
@blueprint.arguments(ListInferences, location="query")
@blueprint.answers(200, JobListShape)
@requires("inference:list")
def list_inferences(query: dict[str, Any]) -> dict[str, Any]:
    """Jobs, newest first."""
    parts = current_parts()
    limit, owner = query["limit"], owner_filter(current_caller())
    found = parts.jobs.page(owner, query, limit, query["last_evaluated_key"])
    places = parts.waiting.places(found[:limit])
    return {
        "inferences": [
            job_view(job, parts.storage, places.get(job["_id"], NO_PLACE)) for job in found[:limit]
        ],
        "last_evaluated_key": next_key(found, limit, "created_at"),
    }


@blueprint.route("/inferences/<job_id>/cancel", methods=["PUT"])
@blueprint.answers(200, JobShape, "inference cancelled")
@requires("inference:create")
def cancel_inference(job_id: str) -> dict[str, Any]:
    """Stop a job wherever it is."""
    parts = current_parts()
    job = visible_job(job_id)
    cancelled = parts.jobs.cancel(job_id, current_caller().name)
    if cancelled is None:
        raise AlreadyFinished(job_id, (parts.jobs.find(job_id, owner=None) or job)["status"])
    parts.bells.cancel(job_id)
    parts.tell(cancelled)
    return _shown(cancelled)


@blueprint.route("/inferences", methods=["DELETE"])
@blueprint.arguments(DeleteInferences)
@blueprint.answers(204)
@requires("inference:delete")
def delete_inferences(body: dict[str, Any]) -> None:
    """Delete jobs with all their objects; absent ids are ignored."""
    caller = current_caller()
    current_parts().deletion.delete(body["inference_id_list"], owner_filter(caller), caller.name)
