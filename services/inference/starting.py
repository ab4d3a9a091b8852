"""Starting a job: its parameters are read and checked, then it waits in line."""

from contextlib import suppress
from typing import Any

from services.common.errors import BadRequest
from services.inference.errors import AlreadyFinished, InferenceNotFound, ParametersMissing, StillRunning
from services.inference.limits import LimitTable
from services.inference.parameters import Summary, read_parameters, summarise
from services.inference.parts import Parts
from services.inference.records import Job
from services.inference.states import Status

NEEDS_CHECKPOINT = {"txt2img", "img2img"}


class JobStart:
    """created → queued, once; Real-time jobs are then waited for."""

    def __init__(self, parts: Parts, limits: LimitTable, wait_seconds: int) -> None:
        self._parts = parts
        self._limits = limits
        self.wait_seconds = wait_seconds

    def start(self, job: Job, actor: str, priority: int | None = None) -> Job:
        """Queue the job; a second start changes nothing and returns the job as it is.

        Raises ParametersMissing, ParametersNotJson, ParametersRefused, AlreadyFinished, QuotaExceeded.
        """
        if job["status"] == Status.CREATED:
            self._check_models(job)
            content = self._parts.storage.read_parameters(job)
            if content is None:
                raise ParametersMissing
            model_ids = [model["id"] for model in job["models"]]
            summary = summarise(job["task_type"], read_parameters(content), model_ids)
            wanted = job["priority"] if priority is None else priority
            queued = self._queue(job, actor, content, summary, wanted)
            if queued is not None:
                self._parts.ring(queued)
                self._parts.tell(queued)
                return queued
        # Somebody else started it meanwhile, or long ago.
        current = self._parts.jobs.find(job["_id"], owner=None) or job
        if current["status"] == Status.CANCELLED:
            raise AlreadyFinished(job["_id"], current["status"])
        return current

    def _queue(self, job: Job, actor: str, content: bytes, summary: Summary, priority: int) -> Job | None:
        limits = self._limits.of(job["user"], job["roles"])
        limits.check(summary)
        sealed = self._parts.storage.seal_parameters(job, content)
        turn = self._parts.shares.next_turn(job["endpoint"], job["user"])
        queued = self._parts.quotas.start(
            job,
            summary.images,
            limits,
            lambda session: self._parts.jobs.queue(
                job["_id"], actor, sealed, summary, turn, priority, limits.running, session
            ),
        )
        # A user's turns go to the most urgent first. Dying in between costs this job its better turn.
        if queued is not None and (earlier := self._parts.line.give_way(queued)) is not None:
            self._parts.line.take_turn(queued, earlier)
        return queued

    def wait(self, job_id: str) -> Job:
        """The finished job. Raises StillRunning when it takes longer than the gateway waits."""
        for event in self._parts.events.listen(job_id, self.wait_seconds):
            if event is None or Status(event["status"]).is_final:
                with suppress(StillRunning):
                    return self.finished(job_id)
        raise StillRunning

    def finished(self, job_id: str) -> Job:
        """A job that is over. Raises StillRunning, and InferenceNotFound when it was deleted meanwhile."""
        job = self._parts.jobs.find(job_id, owner=None)
        if job is None:
            raise InferenceNotFound(job_id)
        if not Status(job["status"]).is_final:
            raise StillRunning
        return job

    @staticmethod
    def _check_models(job: dict[str, Any]) -> None:
        kinds = {model["type"] for model in job["models"]}
        if job["task_type"] in NEEDS_CHECKPOINT and "Stable-diffusion" not in kinds:
            raise BadRequest(f'{job["task_type"]} needs a model of the type "Stable-diffusion" in models')
