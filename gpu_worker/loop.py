"""The worker's loop: claim jobs, run them under their leases, hand their results to the publisher."""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import requests

from gpu_worker import metrics, tracing
from gpu_worker.client import ServiceClient
from gpu_worker.computing import Computing, ids_of
from gpu_worker.errors import (
    AttemptLost,
    Dropped,
    JobFault,
    MachineFault,
    Passing,
    Released,
    ServiceRefused,
    ServiceUnreachable,
)
from gpu_worker.files import FileCache
from gpu_worker.jobs import Endpoint, Job
from gpu_worker.lease import Lease
from gpu_worker.pipelines import ModelMemory
from gpu_worker.prefetch import Prefetch
from gpu_worker.publisher import Publisher, fail_quietly
from gpu_worker.results import Uploader
from gpu_worker.safety import SafetyFilter
from gpu_worker.styles import NO_STYLES, Styles
from gpu_worker.tasks import Task, TaskResult
from gpu_worker.together import Outcome

log = logging.getLogger(__name__)

UNEXPECTED = "the worker met an unexpected error; its log has the details"
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 8.0


class Loop:
    """Claims and runs jobs until it is told to stop or the machine fails.

    `run` belongs to one thread; `assign`, `ring`, `cancel` and `stop` may be called from others.
    """

    def __init__(
        self,
        client: ServiceClient,
        files: FileCache,
        memory: ModelMemory,
        tasks: Mapping[str, Task],
        session: requests.Session,
        *,
        grace_seconds: float,
        claim_seconds: float,
        room: int = 1,
        styles: Styles = NO_STYLES,
        on_change: Callable[[], None] = lambda: None,
        safety: SafetyFilter | None = None,
    ) -> None:
        self._client = client
        self._memory = memory
        self._grace_seconds = grace_seconds
        self._claim_seconds = claim_seconds
        self._room = room
        self._on_change = on_change
        self._computing = Computing(files, memory, tasks, session, safety, styles)
        self._publisher = Publisher(client, Uploader(session), self._forget)
        self._prefetch = Prefetch(client, files, lambda: self._endpoints, self._has_files)
        self._wake = threading.Event()
        self._stop_at: float | None = None
        self._endpoints: tuple[str, ...] = ()
        self._leases: dict[str, Lease] = {}
        self._quiet_since = time.monotonic()
        self._pause = 0.0

    @property
    def endpoints(self) -> list[str]:
        """Names of the endpoints that are served now."""
        return list(self._endpoints)

    @property
    def running(self) -> list[str]:
        """Ids of the jobs that are computed or published."""
        return list(self._leases.copy())

    @property
    def state(self) -> str:
        """The worker's state in its heartbeat."""
        if self._stop_at is not None:
            return "stopping"
        return "busy" if self._leases else "idle"

    @property
    def quiet_seconds(self) -> float:
        """How long there has been no job; 0 while there is one."""
        return 0.0 if self._leases else time.monotonic() - self._quiet_since

    def assign(self, endpoints: Sequence[Endpoint]) -> None:
        """Sets what is served; a new endpoint is asked for work at once."""
        names = tuple(endpoint.name for endpoint in endpoints)
        before, self._endpoints = self._endpoints, names
        if set(names) - set(before):
            self._wake.set()
        if names != before:
            # The endpoint is in service once a heartbeat says that it is served.
            self._on_change()

    def ring(self, endpoint: str) -> None:
        """A bell: a job waits at an endpoint."""
        if endpoint in self._endpoints:
            self._wake.set()
            self._look_ahead()

    def cancel(self, job_id: str) -> None:
        """A bell: a job may have been cancelled; the service is asked, bells are not proof."""
        lease = self._leases.get(job_id)
        if lease is not None:
            lease.ask_service()

    def stop(self) -> None:
        """Claims nothing more; a job that outlasts the grace time is given back."""
        if self._stop_at is None:
            self._stop_at = time.monotonic() + self._grace_seconds
        self._wake.set()
        self._on_change()

    def run(self) -> None:
        """Works until `stop`; raises `MachineFault` when this machine cannot go on."""
        self._prefetch.start()
        try:
            while self._stop_at is None:
                self._wake.clear()
                jobs = self._claim()
                if jobs:
                    self._work(jobs)
                else:
                    self._wake.wait(self._pause or self._claim_seconds)
        finally:
            self._finish()

    def _claim(self) -> list[Job]:
        """The next job in line and others that the service holds to be computable with it."""
        if not self._endpoints:
            return []
        try:
            pixels = self._memory.device.batch_pixels
            jobs = self._client.claim(self._endpoints, self._memory.warm_ids, self._room, pixels)
        except (ServiceUnreachable, ServiceRefused) as error:
            log.warning("nothing could be claimed", extra={"reason": str(error)})
            self._pause_longer()
            return []
        except Exception:
            log.exception("the answer to a claim was not understood")
            self._pause_longer()
            return []
        self._pause = 0.0
        return jobs

    def _pause_longer(self) -> None:
        self._pause = min(max(self._pause * 2, FIRST_PAUSE_SECONDS), LONGEST_PAUSE_SECONDS)

    def _work(self, jobs: list[Job]) -> None:
        """Runs jobs to their ends, each under a lease of its own from the beginning."""
        leases = [Lease(self._client, job, self._must_release) for job in jobs]
        waiting = {lease.job.id: lease for lease in leases}
        self._leases |= waiting
        self._on_change()
        self._look_ahead()
        passing = False
        try:
            for lease, parameters, outcome in self._computing.outcomes(leases):
                with ids_of(lease):
                    del waiting[lease.job.id]
                    passing |= self._end(lease, parameters, outcome)
        except MachineFault as fault:
            for lease in waiting.values():
                with ids_of(lease):
                    self._fail(lease, fault)
                    self._let_go(lease)
            raise
        except Exception:
            log.exception("jobs failed unexpectedly", extra={"jobs": list(waiting)})
            passing = True
            for lease in waiting.values():
                self._end(lease, {}, Passing(UNEXPECTED))
        if passing:
            # The job waits again at once: leave it to another worker, or until the trouble is over.
            self._pause_longer()
            self._wake.wait(self._pause)

    def _end(self, lease: Lease, parameters: Mapping[str, Any], outcome: Outcome) -> bool:
        """Publishes a result or says why there is none; whether the job may be tried again."""
        if isinstance(outcome, TaskResult):
            lease.mark("decoded_at")
            self._publisher.publish(lease, parameters, outcome)
            return False
        if isinstance(outcome, Dropped):
            self._drop(lease, outcome)
        elif isinstance(outcome, JobFault):
            self._fail(lease, outcome)
        else:
            log.error("job failed unexpectedly", exc_info=outcome)
            outcome = Passing(UNEXPECTED)
            self._fail(lease, outcome)
        self._let_go(lease)
        return isinstance(outcome, Passing)

    def _drop(self, lease: Lease, reason: Dropped) -> None:
        log.info("job dropped", extra={"reason": type(reason).__name__})
        _count(lease, "dropped")
        if isinstance(reason, Released):
            try:
                lease.persist(lambda: self._client.release(lease.job))
            except (AttemptLost, ServiceUnreachable, ServiceRefused) as error:
                log.warning("job not given back", extra={"reason": str(error)})

    def _fail(self, lease: Lease, fault: JobFault) -> None:
        log.warning("job failed", extra={"kind": fault.kind, "reason": str(fault)})
        _count(lease, fault.kind)
        fail_quietly(self._client, lease, fault.kind, str(fault))

    def _look_ahead(self) -> None:
        if self._leases:  # an idle worker claims at once
            self._prefetch.look()

    def _has_files(self) -> bool:
        """Whether every job in hand is being computed; what it needs is here then."""
        return all("first_step_at" in lease.timings for lease in list(self._leases.values()))

    def _let_go(self, lease: Lease) -> None:
        lease.close()
        self._forget(lease)

    def _forget(self, lease: Lease) -> None:
        self._quiet_since = time.monotonic()
        self._leases.pop(lease.job.id, None)
        self._on_change()

    def _must_release(self) -> bool:
        return self._stop_at is not None and time.monotonic() >= self._stop_at

    def _finish(self) -> None:
        """Lets the last result out; what does not make it in the grace time is given back."""
        self._prefetch.stop()
        self._computing.close()
        rest = (self._stop_at or time.monotonic()) - time.monotonic()
        if self._publisher.wait(max(rest, 1.0)):
            self._publisher.close()
            return
        for lease in list(self._leases.values()):
            self._drop(lease, Released(f"job {lease.job.id}"))


def _count(lease: Lease, outcome: str) -> None:
    lease.mark("ended_at")
    metrics.ended(lease.job.task_type, outcome)
    tracing.record_attempt(lease.job, lease.timings, outcome)
