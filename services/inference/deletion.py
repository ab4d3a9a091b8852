"""Deleting jobs, and what happens to those whose endpoint is deleted."""

from datetime import timedelta
from typing import Any

from services.common.bells import Bells
from services.common.events import JobEvents
from services.common.service_client import ServiceClient
from services.common.times import now
from services.inference.fairness import FairShare
from services.inference.repository import Jobs
from services.inference.storage import JobStorage


class JobDeletion:
    """Removes records and objects; a worker that still writes is outlived."""

    def __init__(self, jobs: Jobs, storage: JobStorage, bells: Bells, lease_seconds: int) -> None:
        self._jobs = jobs
        self._storage = storage
        self._bells = bells
        self._lease_seconds = lease_seconds

    def delete(self, job_ids: list[str], owner: str | None, actor: str) -> None:
        """Hide the jobs at once, stop what runs, and remove their objects."""
        for job in self._jobs.hide(job_ids, owner, actor):
            self._bells.cancel(job["_id"])
            self._storage.delete_all(job)

    def sweep(self) -> int:
        """Forget deleted jobs after the last upload URL of their workers has ended; how many."""
        swept = self._jobs.hidden_before(now() - timedelta(seconds=2 * self._lease_seconds))
        for job in swept:
            self._storage.delete_all(job)
            self._jobs.remove(job["_id"])
        return len(swept)


class EndpointEnd:
    """Moves waiting jobs away from an endpoint that is deleted."""

    def __init__(
        self, jobs: Jobs, shares: FairShare, endpoints: ServiceClient, bells: Bells, events: JobEvents
    ) -> None:
        self._jobs = jobs
        self._shares = shares
        self._endpoints = endpoints
        self._bells = bells
        self._events = events

    def move_jobs(self, name: str, roles: list[str], endpoint_type: str) -> None:
        """To another endpoint of the same roles and type; where there is none, they fail and say why."""
        waiting = self._jobs.waiting_at(name)
        if not waiting:
            return
        question: dict[str, Any] = {
            "roles": roles,
            "see_all": False,
            "endpoint_type": endpoint_type,
            "name": None,
        }
        found = self._endpoints.call("/internal/candidates", question)["endpoints"]
        others = [endpoint for endpoint in found if endpoint["name"] != name]
        for number, job in enumerate(waiting):
            if others:
                other = others[number % len(others)]
                rank = self._shares.next_rank(other["name"], job["user"])
                if self._jobs.move(job["_id"], name, other, rank):
                    self._bells.ring(other["name"])
                continue
            reason = (
                f"endpoint {name} was deleted and no other {endpoint_type} endpoint of its roles is there"
            )
            if failed := self._jobs.fail_waiting(job["_id"], name, reason):
                self._events.publish(job["_id"], {"status": failed["status"], "progress": None})
