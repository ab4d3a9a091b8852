"""What becomes of a job when its attempt at SageMaker ends, and of what the attempt left."""

import logging
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from services.common.times import now
from services.inference.errors import AttemptOver
from services.inference.parts import Parts
from services.inference.records import Job
from services.inference.running import JobRunning, moment_of
from services.inference.sagemaker.outcome import Failed, Made
from services.inference.sagemaker.repository import Invocation, Invocations
from services.inference.sagemaker.storage import InvocationStorage
from services.inference.states import Status
from services.inference.storage import attempt_folder, result_file

log = logging.getLogger(__name__)

STRAY_LOOK_SECONDS = 10
# After the container's time an upload may be under way, and then its answer.
UPLOAD_SECONDS = 30
ANSWER_SECONDS = 45
# The holder ends the attempt itself, and says why; this is for when it cannot.
LEASE_MARGIN_SECONDS = 90


class Settling:
    """Every change names the attempt, so it may be made twice and from several processes."""

    def __init__(
        self, parts: Parts, running: JobRunning, invocations: Invocations, storage: InvocationStorage
    ) -> None:
        self._parts = parts
        self._running = running
        self._invocations = invocations
        self._storage = storage

    def settle(self, invocation: Invocation, outcome: Made | Failed) -> None:
        """End the attempt as its outcome says; what was cancelled or is over stays so."""
        job_id, actor, attempt = attempt_of(invocation)
        if isinstance(outcome, Made):
            outcome = self._checked(invocation, outcome)
        log.info(
            "SageMaker answered",
            extra={"job_id": job_id, "attempt": attempt, "made": isinstance(outcome, Made)},
        )
        with suppress(AttemptOver):
            if isinstance(outcome, Failed):
                self._running.fail(job_id, actor, attempt, outcome.kind, outcome.message)
            else:
                self._note_steps(invocation, outcome.timings)
                self._running.complete(
                    job_id, actor, attempt, outcome.images, outcome.timings, attempt_folder(attempt)
                )

    def tidy(self, invocation: Invocation, *, answered: bool) -> None:
        """Remove what an attempt left that is not the job's result; until its URLs end, more may come."""
        job = self._parts.jobs.find(invocation["job_id"], owner=None)
        name = invocation["_id"]
        if _is_the_result(invocation, job):
            self._storage.delete_input(name)
            self._invocations.remove(name)
            return
        is_over = now() >= invocation["until"]
        if not answered and not is_over:
            self._invocations.looked(name, now() + timedelta(seconds=STRAY_LOOK_SECONDS))
            return
        locations = [invocation["output"], invocation["failure"]]
        self._storage.delete_attempt(name, invocation["job_id"], invocation["attempt"], locations)
        if is_over:
            self._invocations.remove(name)
        else:
            self._invocations.looked(name, invocation["until"])

    def is_held(self, invocation: Invocation) -> bool:
        """Whether the job still waits for this attempt."""
        return self._parts.attempts.is_held(*attempt_of(invocation))

    def _checked(self, invocation: Invocation, made: Made) -> Made | Failed:
        """A container may say what it likes: the pictures must be there."""
        stored = self._storage.stored_results(invocation["job_id"], invocation["attempt"])
        missing = sorted({*made.images, result_file(invocation["job_id"])} - stored)
        if missing:
            return Failed("passing", f"the container answered, but its result {missing[0]} is not in storage")
        return made

    def _note_steps(self, invocation: Invocation, timings: dict[str, Any]) -> None:
        steps = {
            f"timeline.{step}": moment_of(timings[f"{step}_at"])
            for step in ("first_step", "last_step")
            if f"{step}_at" in timings
        }
        if steps:
            self._parts.attempts.note(*attempt_of(invocation), steps)


def attempt_of(invocation: Invocation) -> tuple[str, str, int]:
    """Job, holder and number of the attempt, as repositories ask for them."""
    return invocation["job_id"], invocation["actor"], invocation["attempt"]


def _is_the_result(invocation: Invocation, job: Job | None) -> bool:
    return job is not None and job["status"] == Status.SUCCEED and job["attempt"] == invocation["attempt"]


def times_of(seconds: int, at: datetime) -> dict[str, datetime]:
    """When an attempt of so many seconds is given up, and when nothing more of it can come."""
    return {
        "over_at": at + timedelta(seconds=seconds + ANSWER_SECONDS),
        "until": at + timedelta(seconds=seconds + UPLOAD_SECONDS + 60),
    }
