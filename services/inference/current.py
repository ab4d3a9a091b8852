"""What the handlers of a request begin with: the service's parts, and the jobs that the caller may see."""

from flask import current_app

from services.common.identity import Caller, current_caller
from services.inference.context import Context
from services.inference.errors import InferenceNotFound
from services.inference.records import Job


def current_parts() -> Context:
    """The service's parts."""
    context: Context = current_app.extensions["inference"]
    return context


def owner_filter(caller: Caller) -> str | None:
    """Whose jobs the caller works with: everybody's (None) or one's own."""
    return None if caller.may("inference:all") else caller.name


def visible_job(job_id: str) -> Job:
    """A job that the caller may see. Raises InferenceNotFound."""
    job = current_parts().jobs.find(job_id, owner_filter(current_caller()))
    if job is None:
        raise InferenceNotFound(job_id)
    return job
