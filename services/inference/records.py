"""One job's record: its indexes, and the one shape of every change of its state."""

from datetime import datetime
from typing import Any

from pymongo import ASCENDING, DESCENDING, ReturnDocument
from pymongo.collection import Collection

from services.common.mongo import Documents
from services.common.times import now
from services.inference.states import Status

Job = dict[str, Any]
ALIVE = {"$ne": Status.DELETED}
IN_LINE = [("rank", ASCENDING), ("queued_at", ASCENDING)]


def entry(status: Status, actor: str, at: datetime, reason: str | None = None) -> dict[str, Any]:
    """A line of a job's history."""
    return {"status": status, "actor": actor, "at": at} | ({"reason": reason} if reason else {})


class JobRecords:
    """The collection `jobs`; its repositories are Jobs, Line and Attempts, by who changes a job."""

    def __init__(self, database: Documents) -> None:
        self._jobs: Collection[Job] = database["jobs"]

    def ensure_indexes(self) -> None:
        """Make the indexes that the queries below stand on."""
        self._jobs.create_index([("user", ASCENDING), ("created_at", DESCENDING), ("_id", DESCENDING)])
        self._jobs.create_index([("created_at", DESCENDING), ("_id", DESCENDING)])
        waiting = {"status": {"$in": [Status.QUEUED, Status.RUNNING]}}
        self._jobs.create_index(
            [("endpoint", ASCENDING), ("status", ASCENDING), *IN_LINE],
            partialFilterExpression=waiting,
            name="line",
        )
        self._jobs.create_index("models.id", partialFilterExpression=waiting, name="models in use")
        self._jobs.create_index(
            [("status", ASCENDING), ("lease.expires_at", ASCENDING)],
            partialFilterExpression={"status": {"$in": [Status.RUNNING, Status.DELETED]}},
            name="leases",
        )

    def _change(
        self,
        expected: dict[str, Any],
        status: Status,
        actor: str,
        at: datetime,
        values: dict[str, Any],
        *,
        drop_lease: bool = False,
        reason: str | None = None,
    ) -> Job | None:
        update: dict[str, Any] = {
            "$set": {"status": status} | values,
            "$push": {"history": entry(status, actor, at, reason)},
        }
        if drop_lease:
            update["$unset"] = {"lease": ""}
        return self._jobs.find_one_and_update(expected, update, return_document=ReturnDocument.AFTER)

    def _fail(self, expected: dict[str, Any], actor: str, reason: str) -> Job | None:
        at = now()
        return self._change(
            expected,
            Status.FAILED,
            actor,
            at,
            {"completed_at": at, "error": reason},
            drop_lease=True,
            reason=reason,
        )
