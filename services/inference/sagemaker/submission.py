"""Gives waiting jobs to SageMaker endpoints, in the line's order and only as many as they soon compute."""

import logging
import threading
from contextlib import suppress
from datetime import datetime
from typing import Any

from services.common.errors import Unavailable
from services.common.service_client import ServiceClient
from services.common.times import now
from services.inference.errors import AttemptOver
from services.inference.parts import Parts
from services.inference.records import Job
from services.inference.running import JobRunning
from services.inference.sagemaker.outcome import Failed, read_answer, read_failure
from services.inference.sagemaker.repository import BACKEND, Invocation, Invocations
from services.inference.sagemaker.runtime import (
    ContainerFailed,
    NotNow,
    Refused,
    SageMakerRuntime,
    Unanswered,
)
from services.inference.sagemaker.settings import REALTIME_SECONDS, SageMakerSettings
from services.inference.sagemaker.settling import (
    LEASE_MARGIN_SECONDS,
    UPLOAD_SECONDS,
    Settling,
    times_of,
)
from services.inference.sagemaker.storage import InvocationStorage, inference_id

log = logging.getLogger(__name__)

PAUSE_SECONDS = 10
# Real-time invocations that one process waits for; each is a thread that sleeps.
MOST_INVOKERS = 32
ABSENT = ("Creating",)  # SageMaker does not have the endpoint yet


class Submission:
    """Claims jobs as a worker would, and hands each to its endpoint; in several processes at once."""

    def __init__(
        self,
        parts: Parts,
        running: JobRunning,
        invocations: Invocations,
        storage: InvocationStorage,
        settling: Settling,
        runtime: SageMakerRuntime,
        endpoints: ServiceClient,
        settings: SageMakerSettings,
    ) -> None:
        self._parts = parts
        self._running = running
        self._invocations = invocations
        self._storage = storage
        self._settling = settling
        self._runtime = runtime
        self._endpoints = endpoints
        self._settings = settings
        self._invokers = threading.BoundedSemaphore(MOST_INVOKERS)

    def submit_all(self) -> None:
        """Submit what waits at every endpoint."""
        for name in self._invocations.endpoints_in_need():
            self.submit(name)

    def submit(self, name: str) -> None:
        """Submit what waits at an endpoint, as far as it has room. Never fails: it is tried again soon."""
        try:
            endpoint = self._endpoint(name)
            while endpoint and (job := self._take(endpoint)):
                self._hand_over(job, endpoint)
        except Unavailable:
            log.warning("the endpoints service was not reached", extra={"endpoint": name})

    def _endpoint(self, name: str) -> dict[str, Any] | None:
        """What is known of a SageMaker endpoint that can be invoked."""
        question = {"roles": [], "see_all": True, "endpoint_type": None, "name": name}
        for endpoint in self._endpoints.call("/internal/candidates", question)["endpoints"]:
            if endpoint["backend"] == BACKEND and endpoint["status"] not in ABSENT:
                return dict(endpoint)
        return None

    def _take(self, endpoint: dict[str, Any]) -> Job | None:
        """The next job, when the endpoint has room; processes take turns, so that room is not given twice."""
        name, is_realtime = endpoint["name"], endpoint["type"] == "Real-time"
        # Without an instance some are submitted: a job that waits at SageMaker is what wakes the endpoint.
        instances = max(endpoint["instance_count"], 1)
        room = instances if is_realtime else instances * self._settings.jobs_per_instance
        if is_realtime and not self._invokers.acquire(blocking=False):
            return None
        job = None
        try:
            with self._invocations.turn(name) as taken:
                if taken and self._invocations.running_at(name) < room:
                    job = self._running.take(_actor(name), name)
        finally:
            if is_realtime and job is None:
                self._invokers.release()
        return job

    def _hand_over(self, job: Job, endpoint: dict[str, Any]) -> None:
        if endpoint["type"] == "Real-time":
            arguments = (job, endpoint)
            threading.Thread(target=self._invoke, args=arguments, name="invoker", daemon=True).start()
        else:
            self._submit(job, endpoint)

    def _submit(self, job: Job, endpoint: dict[str, Any]) -> None:
        """Killed before the lease is prolonged, the attempt ends with it, and the next one begins."""
        seconds = self._settings.attempt_seconds
        invocation = self._invocation(job, endpoint, seconds)
        name, actor = invocation["_id"], invocation["actor"]
        invocation["output"] = f"{endpoint['sagemaker_output_path']}/{name}.out"
        invocation["failure"] = f"{endpoint['sagemaker_failure_path']}/{name}-error.out"
        self._invocations.add(invocation)
        location = self._storage.write_input(name, self._document(job, invocation))
        try:
            places = self._runtime.invoke_async(endpoint["sagemaker_endpoint_name"], name, location, seconds)
        except (NotNow, Refused, Unanswered) as reason:
            self._give_back(invocation, reason)
            return
        self._invocations.placed(name, places.output, places.failure)
        self._parts.attempts.renew(
            job["_id"],
            actor,
            job["attempt"],
            seconds + LEASE_MARGIN_SECONDS,
            {"output_location": places.output},
        )
        log.info("job submitted to SageMaker", extra={"job_id": job["_id"], "attempt": job["attempt"]})

    def _invoke(self, job: Job, endpoint: dict[str, Any]) -> None:
        """A Real-time job from its claim to its end, in a thread of its own."""
        try:
            self._invoke_and_settle(job, endpoint)
        except Exception:
            log.exception("a Real-time invocation broke off", extra={"job_id": job["_id"]})
        finally:
            self._invokers.release()
        self.submit(endpoint["name"])

    def _invoke_and_settle(self, job: Job, endpoint: dict[str, Any]) -> None:
        invocation = self._invocation(job, endpoint, REALTIME_SECONDS)
        self._invocations.add(invocation)
        lease_seconds = REALTIME_SECONDS + LEASE_MARGIN_SECONDS
        holder = (job["_id"], invocation["actor"], job["attempt"])
        if self._parts.attempts.renew(*holder, lease_seconds) is None:
            return
        document = self._document(job, invocation)
        try:
            content = self._runtime.invoke(endpoint["sagemaker_endpoint_name"], invocation["_id"], document)
            outcome = read_answer(content, job["_id"], job["attempt"])
        except ContainerFailed as failure:
            outcome = read_failure(failure.answer.encode())
        except Unanswered as reason:
            outcome = Failed("passing", str(reason))
        except (NotNow, Refused) as reason:
            self._give_back(invocation, reason)
            return
        self._settling.settle(invocation, outcome)
        self._settling.tidy(invocation, answered=True)

    def _give_back(self, invocation: Invocation, reason: Exception) -> None:
        """Submit nothing more for a while; a refusal is a failed attempt, a busy endpoint is none."""
        self._invocations.pause(invocation["endpoint"], PAUSE_SECONDS)
        holder = (invocation["job_id"], invocation["actor"], invocation["attempt"])
        with suppress(AttemptOver):
            if isinstance(reason, Refused):
                self._running.fail(*holder, "passing", str(reason))
            else:
                self._running.release(*holder, str(reason))

    def _invocation(self, job: Job, endpoint: dict[str, Any], seconds: int) -> Invocation:
        at = now()
        return {
            "_id": inference_id(job["_id"], job["attempt"]),
            "job_id": job["_id"],
            "attempt": job["attempt"],
            "actor": _actor(endpoint["name"]),
            "endpoint": endpoint["name"],
            "seconds": seconds,
            "output": None,
            "failure": None,
            "begun_at": at,
        } | times_of(seconds, at)

    def _document(self, job: Job, invocation: Invocation) -> dict[str, Any]:
        begun_at: datetime = invocation["begun_at"]
        seconds = invocation["seconds"]
        return self._running.for_worker(job) | {
            "uploads": self._storage.upload_urls(job, seconds + UPLOAD_SECONDS),
            "expires_at": begun_at.timestamp() + seconds,
        }


def _actor(endpoint: str) -> str:
    """Who holds the leases of an endpoint's jobs."""
    return f"{BACKEND}:{endpoint}"
