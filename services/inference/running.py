"""What GPU workers do with jobs: claim, report, deliver, fail, give back."""

import re
from datetime import UTC, datetime
from typing import Any

from services.common import tracing
from services.common.errors import BadRequest
from services.common.metrics import LEASES_EXPIRED
from services.common.times import now
from services.inference import metrics
from services.inference.claiming import Claiming
from services.inference.errors import AttemptOver
from services.inference.job_view import raw_output
from services.inference.parts import Parts
from services.inference.records import Job
from services.inference.states import Status
from services.inference.storage import result_file
from services.inference.worker_schemas import IMAGE_NAME

LONGEST_REASON = 1000
# What is kept of a worker's timings, epoch seconds by its clock.
TIMINGS = (
    "claimed_at",
    "parameters_at",
    "first_step_at",
    "last_step_at",
    "decoded_at",
    "encoded_at",
    "uploaded_at",
)


class JobRunning:
    """The life of a job between claim and end; every change names the attempt that makes it."""

    def __init__(self, parts: Parts, lease_seconds: int, max_attempts: int, limits_running: bool) -> None:
        self._parts = parts
        self._claiming = Claiming(parts, lease_seconds, limits_running, self.requeue_expired)
        self._lease_seconds = lease_seconds
        self._max_attempts = max_attempts

    def claim(
        self, worker_id: str, endpoints: list[str], warm: list[str], room: int, pixels: int | None = None
    ) -> list[dict[str, Any]]:
        """Jobs for a worker, as it is told of them."""
        claimed = self._claiming.claim(worker_id, endpoints, warm, room, pixels)
        for job in claimed:
            self._begun(job)
        return [self.for_worker(job) for job in claimed]

    def upcoming(self, endpoints: list[str]) -> list[dict[str, Any]]:
        """The files of the jobs that are next in line, each once."""
        models = [model for name in endpoints for model in self._parts.line.next_models(name)]
        return list({model["id"]: self._file(model) for model in models if "key" in model}.values())

    def take(self, holder: str, endpoint: str) -> Job | None:
        """The first job in an endpoint's line, for somebody who hands it on."""
        for job in self._claiming.claim(holder, [endpoint], warm=[], room=1):
            self._begun(job)
            return job
        return None

    def _begun(self, job: Job) -> None:
        self._parts.tell(job)
        metrics.attempted(job)
        about = {"job_id": job["_id"], "endpoint": job["endpoint"], "attempt": job["attempt"]}
        tracing.record(
            "in line", job.get("traceparent"), job.get("queued_at"), job.get("started_at"), **about
        )

    def report(self, job_id: str, worker_id: str, attempt: int, report: dict[str, Any]) -> None:
        """Renew the lease and keep the progress. Raises AttemptOver."""
        progress = {name: report[name] for name in ("step", "steps", "image", "images")}
        changes: dict[str, Any] = {"progress": progress}
        if report["event"]:
            changes[f"timeline.{report['event']}"] = moment_of(report["at"])
        job = self._parts.attempts.renew(job_id, worker_id, attempt, self._lease_seconds, changes)
        if job is None:
            raise AttemptOver
        self._parts.tell(job)

    def upload_urls(self, job_id: str, worker_id: str, attempt: int, files: list[str]) -> dict[str, str]:
        """URLs for results, valid no longer than the lease that this renews. Raises AttemptOver."""
        for name in files:
            if name != result_file(job_id) and not re.fullmatch(IMAGE_NAME, name):
                raise BadRequest(f"{name[:60]} is no name of a result")
        if self._parts.attempts.renew(job_id, worker_id, attempt, self._lease_seconds) is None:
            raise AttemptOver
        return self._parts.storage.result_upload_urls(job_id, files, self._lease_seconds)

    def complete(
        self,
        job_id: str,
        worker_id: str,
        attempt: int,
        images: list[str],
        timings: dict[str, Any],
        folder: str = "",
    ) -> None:
        """running → succeed. Raises AttemptOver."""
        if not self._parts.attempts.is_held(job_id, worker_id, attempt):
            raise AttemptOver
        # Before the change of state: whoever sees `succeed` finds everything there.
        self._parts.storage.write_output(job_id, raw_output(job_id, images))
        kept = {name: timings[name] for name in TIMINGS if isinstance(timings.get(name), int | float)}
        job = self._parts.attempts.complete(job_id, worker_id, attempt, images, kept, folder)
        if job is None:
            raise AttemptOver
        self._parts.tell(job)
        seconds = (job["completed_at"] - job["started_at"]).total_seconds()
        self._parts.pace.took(job["endpoint"], seconds / job.get("together", 1))

    def fail(self, job_id: str, worker_id: str, attempt: int, kind: str, message: str) -> None:
        """The request's fault fails the job, any other gives it another attempt. Raises AttemptOver."""
        reason = message if len(message) <= LONGEST_REASON else message[: LONGEST_REASON - 3] + "..."
        if kind == "request":
            job = self._parts.attempts.fail(job_id, worker_id, attempt, reason)
        else:
            job = self._parts.attempts.retry(job_id, worker_id, attempt, reason, self._max_attempts)
        self._given_on(job)

    def release(
        self,
        job_id: str,
        worker_id: str,
        attempt: int,
        reason: str = "given back by a worker that stops",
    ) -> None:
        """running → queued, and no attempt has failed. Raises AttemptOver."""
        self._given_on(self._parts.attempts.release(job_id, worker_id, attempt, reason))

    def requeue_expired(self) -> int:
        """Take jobs from workers that went silent; how many."""
        changed = self._parts.attempts.requeue_expired(self._max_attempts)
        LEASES_EXPIRED.labels("inference").inc(len(changed))
        for job in changed:
            self._given_on(job)
        return len(changed)

    def _given_on(self, job: Job | None) -> None:
        if job is None:
            raise AttemptOver
        if job["status"] == Status.QUEUED:
            self._parts.ring(job)
        self._parts.tell(job)

    def _file(self, model: dict[str, Any]) -> dict[str, Any]:
        told = {name: model[name] for name in ("type", "name", "id", "size", "etag", "sha256")}
        return told | {"url": self._parts.storage.model_url(model["key"])}

    def for_worker(self, job: Job) -> dict[str, Any]:
        files = [self._file(model) for model in job["models"] if "key" in model]
        built_in = [
            {"type": model["type"], "name": model["name"], "id": model["id"], "url": None}
            for model in job["models"]
            if "key" not in model
        ]
        return {
            "id": job["_id"],
            "attempt": job["attempt"],
            "lease_seconds": self._lease_seconds,
            "endpoint": job["endpoint"],
            "task_type": job["task_type"],
            "request_id": job.get("request_id"),
            "traceparent": job.get("traceparent"),
            "parameters_url": self._parts.storage.sealed_url(job),
            "seed": job["seed"],
            "preview": job.get("wants_preview", False),
            "models": files + built_in,
        }


def moment_of(epoch: float | None) -> datetime:
    """The worker's time of an event, unless its clock is ahead of ours."""
    current = now()
    if epoch is None or not 0 < epoch < current.timestamp():
        return current
    moment = datetime.fromtimestamp(epoch, UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)
