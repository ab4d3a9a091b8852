"""How a client follows a job: as a stream of server-sent events."""

from flask import Response, request

from services.common.identity import current_caller, requires
from services.common.web import ServiceBlueprint
from services.inference.current import current_parts, visible_job
from services.inference.event_text import ENDED
from services.inference.following import Following
from services.inference.states import Status

blueprint = ServiceBlueprint("events", __name__, description="Following inference jobs")

STREAM_HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",
}


@blueprint.route("/inferences/<job_id>/events", methods=["GET"])
@blueprint.response(200, {"type": "string"}, content_type="text/event-stream")
@blueprint.alt_response(204, description="The job has ended, and the client heard it (Last-Event-ID)")
@requires("inference:list")
def follow_inference(job_id: str) -> Response:
    """Server-sent events of a job until its end: status, progress, preview, end."""
    job = visible_job(job_id)
    if Status(job["status"]).is_final and request.headers.get("Last-Event-ID", "").startswith(ENDED):
        return Response(status=204)
    if request.method == "HEAD":
        return Response(headers=STREAM_HEADERS)
    streams = current_parts().streams
    stream = streams.open(job_id, current_caller().name)
    try:
        # Read again: what happens from here on is heard.
        job = visible_job(job_id)
        position = current_parts().line.position(job)
    except Exception:
        streams.close(stream)
        raise
    return Response(Following(streams, stream, job, position, request.environ), headers=STREAM_HEADERS)
