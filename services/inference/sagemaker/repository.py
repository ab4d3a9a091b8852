"""Every query of the collections `invocations` and `sagemaker_lines`, and SageMaker's of `jobs`."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from pymongo import ASCENDING
from pymongo.collection import Collection
from pymongo.errors import DuplicateKeyError

from services.common.indexes import ensure_index
from services.common.mongo import Documents
from services.common.times import now
from services.inference.states import Status

Invocation = dict[str, Any]
BACKEND = "sagemaker"
# Longer than a turn's work takes; a process that dies in its turn holds up the others no longer.
TURN_SECONDS = 20
MOST_AT_ONCE = 500


class Invocations:
    """Attempts that SageMaker may still be working on, until nothing of them can turn up any more."""

    def __init__(self, database: Documents) -> None:
        self._invocations: Collection[Invocation] = database["invocations"]
        self._lines: Collection[dict[str, Any]] = database["sagemaker_lines"]
        self._jobs: Collection[dict[str, Any]] = database["jobs"]

    def ensure_indexes(self) -> None:
        """Make the indexes that the queries below stand on."""
        ensure_index(self._invocations, [("look_at", ASCENDING)])
        waiting = {"status": {"$in": [Status.QUEUED, Status.RUNNING]}}
        ensure_index(
            self._jobs,
            [("backend", ASCENDING), ("status", ASCENDING), ("endpoint", ASCENDING)],
            partialFilterExpression=waiting,
            name="backends",
        )

    # invocations

    def add(self, invocation: Invocation) -> None:
        """Keep an invocation that is about to be made."""
        self._invocations.insert_one(invocation | {"look_at": now()})

    def placed(self, name: str, output: str, failure: str | None) -> None:
        """Note where SageMaker said that it will put the answer."""
        self._invocations.update_one({"_id": name}, {"$set": {"output": output, "failure": failure}})

    def due(self) -> list[Invocation]:
        """Those to look at now, the one that has waited longest first."""
        due = {"look_at": {"$lte": now()}}
        return list(self._invocations.find(due).sort("look_at", ASCENDING).limit(MOST_AT_ONCE))

    def looked(self, name: str, again_at: datetime) -> None:
        """Look at it again then."""
        self._invocations.update_one({"_id": name}, {"$set": {"look_at": again_at}})

    def remove(self, name: str) -> None:
        """Nothing of it can turn up any more."""
        self._invocations.delete_one({"_id": name})

    # endpoints

    def endpoints_in_need(self) -> list[str]:
        """The SageMaker endpoints at which jobs wait."""
        return sorted(self._jobs.distinct("endpoint", {"backend": BACKEND, "status": Status.QUEUED}))

    def running_at(self, endpoint: str) -> int:
        """How many jobs are at SageMaker for an endpoint."""
        return self._jobs.count_documents(
            {"backend": BACKEND, "status": Status.RUNNING, "endpoint": endpoint}
        )

    def pause(self, endpoint: str, seconds: float) -> None:
        """Submit nothing to an endpoint for a while."""
        self._lines.update_one(
            {"_id": endpoint}, {"$set": {"paused_until": now() + timedelta(seconds=seconds)}}, upsert=True
        )

    @contextmanager
    def turn(self, line: str) -> Iterator[bool]:
        """Whether it is this process's turn at a line until the block ends; nobody else has one meanwhile."""
        until = now() + timedelta(seconds=TURN_SECONDS)
        taken = self._take(line, until)
        try:
            yield taken
        finally:
            if taken:
                self._lines.update_one({"_id": line, "taken_until": until}, {"$unset": {"taken_until": ""}})

    def _take(self, line: str, until: datetime) -> bool:
        at = now()
        free = {
            "_id": line,
            "taken_until": {"$not": {"$gte": at}},
            "paused_until": {"$not": {"$gte": at}},
        }
        try:
            self._lines.update_one(free, {"$set": {"taken_until": until}}, upsert=True)
        except DuplicateKeyError:
            return False
        return True
