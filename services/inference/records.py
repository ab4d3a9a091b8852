"""One job's record: its indexes, and the one shape of every change of its state."""

from datetime import datetime
from typing import Any

from pymongo import ASCENDING, DESCENDING, ReturnDocument
from pymongo.client_session import ClientSession
from pymongo.collection import Collection

from services.common.indexes import ensure_index
from services.common.mongo import Documents
from services.common.times import now
from services.inference.states import Status

Job = dict[str, Any]
ALIVE = {"$ne": Status.DELETED}
IN_LINE = [("rank", ASCENDING), ("queued_at", ASCENDING)]
WAITING = {"status": {"$in": [Status.QUEUED, Status.RUNNING]}}
# Only jobs that wait or run are in these, however many have ended.
WAITING_INDEXES = {
    "in line": [("endpoint", ASCENDING), ("status", ASCENDING), *IN_LINE, ("user", ASCENDING)],
    "alike": [("endpoint", ASCENDING), ("status", ASCENDING), ("batch_key", ASCENDING), *IN_LINE],
    "own line": [
        ("user", ASCENDING),
        ("status", ASCENDING),
        ("endpoint", ASCENDING),
        *IN_LINE,
        ("priority", ASCENDING),
    ],
    "models in use": [("models.id", ASCENDING)],
}
# A job that is given back all day long, as by an endpoint that has no room, must not grow with it.
LONGEST_HISTORY = 100
NEWEST_FIRST = [("created_at", DESCENDING), ("_id", DESCENDING)]


def list_indexes(owner: list[str]) -> list[tuple[str, list[tuple[str, int]]]]:
    """The indexes of lists, of everybody's jobs (`owner` empty) or of each user's: name and fields.

    A list names the values of every field before `created_at`, where need be all that there are: then any
    filter is read in order, without a job that is not shown.
    """
    begin = [(name, ASCENDING) for name in owner]
    chosen = [("status", ASCENDING), ("task_type", ASCENDING), *NEWEST_FIRST]
    return [
        (list_index(bool(owner), at_endpoint=False), begin + chosen),
        (list_index(bool(owner), at_endpoint=True), [*begin, ("endpoint", ASCENDING), *chosen]),
    ]


def list_index(owned: bool, *, at_endpoint: bool) -> str:
    """The name of the index of a list."""
    return f"{'own' if owned else 'all'} jobs{' at an endpoint' if at_endpoint else ''}"


def entry(status: Status, actor: str, at: datetime, reason: str | None = None) -> dict[str, Any]:
    """A line of a job's history."""
    return {"status": status, "actor": actor, "at": at} | ({"reason": reason} if reason else {})


def noted(line: dict[str, Any]) -> dict[str, Any]:
    """What `$push` takes to add a line to a job's history, which keeps its newest."""
    return {"history": {"$each": [line], "$slice": -LONGEST_HISTORY}}


def owned_by(owner: str | None) -> dict[str, Any]:
    """The query part for what is a user's; None: everybody's."""
    return {} if owner is None else {"user": owner}


class JobRecords:
    """The collection `jobs`; its repositories are Jobs, Line and Attempts, by who changes a job."""

    def __init__(self, database: Documents) -> None:
        self._jobs: Collection[Job] = database["jobs"]

    def ensure_indexes(self) -> None:
        """Make the indexes that the queries stand on."""
        for owner in ([], ["user"]):
            for name, fields in list_indexes(owner):
                ensure_index(self._jobs, fields, name=name)
        for name, fields in WAITING_INDEXES.items():
            ensure_index(self._jobs, fields, name=name, partialFilterExpression=WAITING)
        ensure_index(
            self._jobs,
            [("status", ASCENDING), ("lease.expires_at", ASCENDING)],
            partialFilterExpression={"status": {"$in": [Status.RUNNING, Status.DELETED]}},
            name="leases",
        )
        ensure_index(
            self._jobs,
            [("completed_at", ASCENDING)],
            partialFilterExpression={"completed_at": {"$exists": True}},
            name="ends",
        )
        ensure_index(
            self._jobs, "status", partialFilterExpression={"webhooks_due": True}, name="ends to announce"
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
        session: ClientSession | None = None,
    ) -> Job | None:
        update: dict[str, Any] = {
            "$set": {"status": status} | values,
            "$push": noted(entry(status, actor, at, reason)),
        }
        if drop_lease:
            update["$unset"] = {"lease": ""}
        return self._jobs.find_one_and_update(
            expected, update, return_document=ReturnDocument.AFTER, session=session
        )

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
