"""A worker's claim: whose turn it is, and which other jobs can be computed together with that one."""

from collections.abc import Callable

from services.inference.parts import Parts
from services.inference.quotas_repository import AtLimit
from services.inference.records import Job
from services.inference.scheduling import choose_warm, turn_of


class Claiming:
    """Chooses jobs for a worker and puts each under a lease."""

    def __init__(
        self, parts: Parts, lease_seconds: int, limits_running: bool, requeue_expired: Callable[[], int]
    ) -> None:
        self._parts = parts
        self._lease_seconds = lease_seconds
        self._limits_running = limits_running
        self._requeue_expired = requeue_expired

    def claim(
        self, worker_id: str, endpoints: list[str], warm: list[str], room: int, pixels: int | None = None
    ) -> list[Job]:
        """The first job in line and, up to `room`, others that can be computed together with it.

        None is added to those whose pictures leave no room for one more in `pixels`: it would only wait.
        A job whose models are `warm` may pass others that are not, a bounded number of times.
        """
        first = self._first(worker_id, endpoints, warm)
        # Nobody else may be there to notice silent workers: the reaper needs Redis, claims do not.
        if first is None and self._requeue_expired():
            first = self._first(worker_id, endpoints, warm)
        if first is None:
            return []
        claimed = [first]
        while len(claimed) < room and _has_space(claimed, pixels):
            alike = self._next(worker_id, first["endpoint"], first["batch_key"])
            if alike is None:
                break
            claimed.append(alike)
        self._parts.shares.claimed(first["endpoint"], turn_of(first))
        if len(claimed) > 1:
            self._parts.attempts.run_together(worker_id, [job["_id"] for job in claimed])
        return claimed

    def _first(self, worker_id: str, endpoints: list[str], warm: list[str]) -> Job | None:
        for endpoint in self._parts.line.lines(endpoints):
            if job := self._first_warm(worker_id, endpoint, warm) or self._next(worker_id, endpoint):
                return job
        return None

    def _first_warm(self, worker_id: str, endpoint: str, warm: list[str]) -> Job | None:
        """A job that passes others because its model is warm; None when the first in line is to be taken."""
        if not warm:
            return None
        window = self._parts.line.window(endpoint)
        chosen = choose_warm(window, warm)
        if chosen == 0 or not self._parts.line.leave_to_pass([job["_id"] for job in window[:chosen]]):
            return None
        try:
            return self._take(worker_id, endpoint, window[chosen])
        except AtLimit:
            return None

    def _next(self, worker_id: str, endpoint: str, batch_key: str | None = None) -> Job | None:
        """The first in line, or the first with this key, whose user may have one more running."""
        line = self._parts.line
        if not self._limits_running:
            return line.claim(worker_id, endpoint, self._lease_seconds, batch_key=batch_key)
        at_limit = self._parts.quotas.at_their_limit()
        while candidate := line.first(endpoint, at_limit, batch_key):
            try:
                if job := self._take(worker_id, endpoint, candidate):
                    return job
            except AtLimit:
                at_limit.append(candidate["user"])
        return None

    def _take(self, worker_id: str, endpoint: str, job: Job) -> Job | None:
        """This job; None when somebody else was quicker. Raises AtLimit."""
        line, seconds, job_id = self._parts.line, self._lease_seconds, job["_id"]
        if "running_limit" not in job:
            return line.claim(worker_id, endpoint, seconds, job_id=job_id)
        return self._parts.quotas.claim(
            job, lambda session: line.claim(worker_id, endpoint, seconds, job_id=job_id, session=session)
        )


def _has_space(claimed: list[Job], pixels: int | None) -> bool:
    """Whether one more picture of their size fits beside all pictures of these jobs."""
    if pixels is None:
        return True
    images = sum(job.get("images", 1) for job in claimed)
    return (images + 1) * int(claimed[0].get("picture_pixels", 0)) <= pixels
