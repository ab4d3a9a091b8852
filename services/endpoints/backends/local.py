"""The deployment's own machines: capacity is the slots of the registered workers."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from services.endpoints.assignment import Machine, Wish, plan
from services.endpoints.backends.protocol import Observed
from services.endpoints.repository import Endpoint, Limit
from services.endpoints.states import SERVING
from services.endpoints.workers import STOPPING, Worker, Workers, slots_of


class LocalBackend:
    """Gives the slots of registered workers to endpoints; the workers hear of it in their heartbeats."""

    scales_itself = False

    def __init__(self, workers: Workers, ceilings: Mapping[str, int], creation_seconds: float) -> None:
        self._workers = workers
        self._ceilings = ceilings
        self.creation_seconds = creation_seconds

    def prepare(self, endpoint: Endpoint) -> dict[str, Any]:
        """Nothing more; the workers run their own image."""
        return {}

    def start(self, endpoint: Endpoint) -> None:
        """Nothing: the slots are given by `converge`."""

    def synchronise(self) -> None:
        """Nothing: workers report by themselves."""

    def address(self, endpoint: Endpoint) -> dict[str, str | None]:
        """Nowhere: the workers claim the jobs."""
        return {}

    def limit(self, instance_type: str) -> Limit:
        """The configured ceiling of the type, else the slots of its workers."""
        limits = self._registered() | dict(self._ceilings)
        return Limit(limits.get(instance_type, 0), limits)

    def _registered(self) -> dict[str, int]:
        slots: Counter[str] = Counter()
        for worker in self._available():
            slots[worker["instance_type"]] += worker["slots"]
        return dict(slots)

    def _available(self) -> list[Worker]:
        return [worker for worker in self._workers.present() if worker["state"] != STOPPING]

    def converge(self, endpoints: Sequence[Endpoint]) -> None:
        """Take slots from workers that are lost or stopping, and bring the others to the plan.

        Every step names what it expects: what another copy has done first is left alone.
        """
        self._workers.clear_absent()
        machines = [
            Machine(worker["_id"], worker["instance_type"], worker["slots"], list(slots_of(worker)))
            for worker in self._available()
        ]
        wishes = [
            Wish(endpoint["_id"], endpoint["instance_type"], endpoint["wanted"])
            for endpoint in endpoints
            if endpoint["status"] in SERVING
        ]
        by_id = {endpoint["_id"]: endpoint for endpoint in endpoints}
        changes = plan(wishes, machines, self._ceilings)
        for worker_id, slot in changes.frees:
            self._workers.free_slot(worker_id, slot)
        for worker_id, slot in changes.takes:
            endpoint = by_id[slot.endpoint_id]
            self._workers.take_slot(worker_id, slot, endpoint["name"], endpoint["endpoint_type"])

    def observe(self, endpoints: Sequence[Endpoint]) -> dict[str, Observed]:
        """An instance is ready when its worker says that it serves the endpoint."""
        placed: Counter[str] = Counter()
        ready: Counter[str] = Counter()
        served: set[str] = set()
        for worker in self._workers.present():
            served.update(worker["serving"])
            if worker["state"] == STOPPING:
                continue
            for taken in worker["slots_taken"]:
                placed[taken["endpoint_id"]] += 1
                ready[taken["endpoint_id"]] += taken["name"] in worker["serving"]
        return {
            endpoint["_id"]: Observed(
                placed=placed[endpoint["_id"]],
                ready=ready[endpoint["_id"]],
                gone=not placed[endpoint["_id"]] and endpoint["name"] not in served,
            )
            for endpoint in endpoints
        }

    def instances(self, endpoint: Endpoint) -> list[dict[str, Any]]:
        """The workers that have slots of the endpoint or still serve it."""
        found = []
        for worker in self._workers.present():
            count = sum(slot.endpoint_id == endpoint["_id"] for slot in slots_of(worker))
            serves = endpoint["name"] in worker["serving"]
            if count or serves:
                found.append(
                    worker
                    | {
                        "instances": count,
                        "ready": bool(count and serves and worker["state"] != STOPPING),
                        "jobs_running": len(worker["running"]),
                    }
                )
        return found

    def shortage(self, endpoint: Endpoint) -> str:
        """Whether there is no worker, or none that became ready."""
        instance_type = endpoint["instance_type"]
        slots = self._registered().get(instance_type, 0)
        if not slots:
            return f"no worker of instance type {instance_type} is registered"
        return (
            f"the workers of instance type {instance_type} have {slots} slots, and none serves the endpoint"
        )
