"""Every query and index of the collection `workers`: their reports, and the slots given to endpoints."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pymongo import ReturnDocument, WriteConcern
from pymongo.collection import Collection
from pymongo.errors import DuplicateKeyError

from services.common.indexes import ensure_index
from services.common.mongo import Documents
from services.common.times import now

Worker = dict[str, Any]
FORGET_AFTER_SECONDS = 24 * 3600
STOPPING = "stopping"


@dataclass(frozen=True)
class Slot:
    """One instance of an endpoint: its number counts from 0."""

    endpoint_id: str
    number: int

    @property
    def key(self) -> str:
        """Unique among all workers' slots, by an index."""
        return f"{self.endpoint_id}:{self.number}"


class Workers:
    """The registered GPU workers."""

    def __init__(self, database: Documents, lost_seconds: float) -> None:
        self._workers: Collection[Worker] = database["workers"]
        # A heartbeat need not survive a fail-over: the next one comes in two seconds.
        self._reports = self._workers.with_options(write_concern=WriteConcern(w=1))
        self._lost = timedelta(seconds=lost_seconds)

    def ensure_indexes(self) -> None:
        """Make the index by which every instance of an endpoint is at one worker."""
        ensure_index(
            self._workers,
            "slots_taken.key",
            unique=True,
            partialFilterExpression={"slots_taken.key": {"$exists": True}},
            name="an_instance_is_at_one_worker",
        )
        ensure_index(self._workers, "heartbeat_at", expireAfterSeconds=FORGET_AFTER_SECONDS)

    def report(self, worker_id: str, heartbeat: dict[str, Any]) -> Worker | None:
        """Keep what a worker says of itself; returns what was known before, None for a new worker."""
        return self._reports.find_one_and_update(
            {"_id": worker_id},
            {"$set": heartbeat | {"heartbeat_at": now()}, "$setOnInsert": {"slots_taken": []}},
            upsert=True,
            return_document=ReturnDocument.BEFORE,
        )

    def is_lost(self, worker: Worker) -> bool:
        """Whether the worker has been silent for too long."""
        heard: datetime = worker["heartbeat_at"]
        return heard < now() - self._lost

    def slots_of(self, worker_id: str) -> list[dict[str, Any]]:
        """The slots that the worker has given to endpoints."""
        worker = self._workers.find_one({"_id": worker_id}, {"slots_taken": True})
        return worker["slots_taken"] if worker else []

    def present(self) -> list[Worker]:
        """The workers that were heard lately."""
        return list(self._workers.find({"heartbeat_at": {"$gte": now() - self._lost}}).sort("_id"))

    def clear_absent(self) -> None:
        """Take the slots back from workers that are lost or stopping."""
        self._workers.update_many(
            {
                "slots_taken.key": {"$exists": True},
                "$or": [{"heartbeat_at": {"$lt": now() - self._lost}}, {"state": STOPPING}],
            },
            {"$set": {"slots_taken": []}},
        )

    def take_slot(self, worker_id: str, slot: Slot, name: str, endpoint_type: str) -> bool:
        """Give a free slot of a worker to an endpoint; False when another copy was faster."""
        taken = {
            "key": slot.key,
            "endpoint_id": slot.endpoint_id,
            "number": slot.number,
            "name": name,
            "type": endpoint_type,
        }
        try:
            changed = self._workers.update_one(
                {
                    "_id": worker_id,
                    "state": {"$ne": STOPPING},
                    "heartbeat_at": {"$gte": now() - self._lost},
                    "slots_taken.key": {"$ne": slot.key},
                    "$expr": {"$lt": [{"$size": "$slots_taken"}, "$slots"]},
                },
                {"$push": {"slots_taken": taken}},
            )
        except DuplicateKeyError:
            return False
        return changed.modified_count == 1

    def free_slot(self, worker_id: str, slot: Slot) -> None:
        """Take an instance from a worker."""
        self._workers.update_one({"_id": worker_id}, {"$pull": {"slots_taken": {"key": slot.key}}})


def slots_of(worker: Worker) -> Sequence[Slot]:
    """The slots that a worker's document says are taken."""
    return [Slot(taken["endpoint_id"], taken["number"]) for taken in worker["slots_taken"]]
