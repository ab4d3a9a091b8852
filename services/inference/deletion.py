"""Deleting jobs, and what happens to those whose endpoint is deleted."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

from services.common.service_client import ServiceClient
from services.common.times import now
from services.inference.parts import Parts
from services.inference.records import Job

AT_ONCE = 8


class JobDeletion:
    """Removes records and objects; a worker that still writes is outlived."""

    def __init__(self, parts: Parts, lease_seconds: int) -> None:
        self._parts = parts
        self._lease_seconds = lease_seconds

    def delete(self, job_ids: list[str], owner: str | None, actor: str) -> None:
        """Hide the jobs at once, stop what runs, and remove their objects."""
        hidden = self._parts.jobs.hide(job_ids, owner, actor)
        # A thousand at once, one after the other, would outlast the gateway's patience.
        with ThreadPoolExecutor(AT_ONCE) as threads:
            list(threads.map(self.finish, hidden))

    def finish(self, job: Job) -> None:
        """Stop a hidden job and remove its objects; killed in here, `sweep` does it."""
        self._parts.bells.cancel(job["_id"])
        self._parts.tell(job)
        self._parts.storage.delete_all(job)

    def sweep(self) -> int:
        """Forget deleted jobs after the last upload URL of their workers has ended; how many."""
        swept = self._parts.jobs.hidden_before(now() - timedelta(seconds=2 * self._lease_seconds))
        for job in swept:
            self._parts.storage.delete_all(job)
            self._parts.quotas.forget(job)
            self._parts.jobs.remove(job["_id"])
        return len(swept)


class EndpointEnd:
    """Moves waiting jobs away from an endpoint that is deleted."""

    def __init__(self, parts: Parts, endpoints: ServiceClient) -> None:
        self._parts = parts
        self._endpoints = endpoints

    def move_jobs(self, name: str, roles: list[str], endpoint_type: str) -> None:
        """To another endpoint of the same roles and type; where there is none, they fail and say why."""
        waiting = self._parts.line.waiting_at(name)
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
                turn = self._parts.shares.next_turn(other["name"], job["user"])
                if moved := self._parts.line.move(job["_id"], name, other, turn):
                    self._parts.ring(moved)
                continue
            reason = (
                f"endpoint {name} was deleted and no other {endpoint_type} endpoint of its roles is there"
            )
            if failed := self._parts.line.fail_waiting(job["_id"], name, reason):
                self._parts.tell(failed)
