"""The lines of jobs that wait at endpoints: claims, positions, and what becomes of a line that ends."""

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from pymongo import ASCENDING, ReturnDocument
from pymongo.client_session import ClientSession

from services.common.times import now
from services.inference.records import IN_LINE, Job, JobRecords, entry, noted
from services.inference.scheduling import LOWEST_PRIORITY, MOST_OVERTAKEN, WINDOW, rank_of, turn_of
from services.inference.states import Status

# Nobody needs to know exactly how many more there are: counting takes time that grows with the line.
COUNTED = 10_000
# So many jobs ahead a worker may fetch files.
FORESEEN = 2


class Line(JobRecords):
    """Who waits where, and who is next."""

    def position(self, job: Job, counted: int = COUNTED) -> int | None:
        """The job's place in its endpoint's line, from 1; None when it does not wait or is further back
        than is counted."""
        if job["status"] != Status.QUEUED:
            return None
        rank = job["rank"]
        before = {
            "endpoint": job["endpoint"],
            "status": Status.QUEUED,
            "$or": [{"rank": {"$lt": rank}}, {"rank": rank, "queued_at": {"$lt": job["queued_at"]}}],
        }
        ahead = self._jobs.count_documents(before, limit=counted, hint="in line")
        return ahead + 1 if ahead < counted else None

    def first_ids(self, endpoint: str, count: int) -> list[str]:
        """The beginning of an endpoint's line."""
        waiting = {"endpoint": endpoint, "status": Status.QUEUED}
        return [job["_id"] for job in self._jobs.find(waiting, {"_id": True}).sort(IN_LINE).limit(count)]

    def running(self, endpoint: str) -> int:
        """How many jobs run at an endpoint, counted up to a bound."""
        return self._count(endpoint, Status.RUNNING)

    def backlog(self, endpoints: Iterable[str]) -> dict[str, dict[str, int]]:
        """How many jobs wait and run at each endpoint, counted up to a bound."""
        return {
            name: {
                "waiting": self._count(name, Status.QUEUED),
                "running": self._count(name, Status.RUNNING),
            }
            for name in endpoints
        }

    def _count(self, endpoint: str, status: Status) -> int:
        return self._jobs.count_documents(
            {"endpoint": endpoint, "status": status}, limit=COUNTED, hint="in line"
        )

    # taking places

    def take_turn(self, job: Job, turn: int) -> None:
        """Let a waiting job have another turn."""
        waiting = {"_id": job["_id"], "status": Status.QUEUED, "rank": job["rank"]}
        self._jobs.update_one(waiting, {"$set": {"rank": rank_of(turn, job["priority"])}})

    def give_way(self, job: Job) -> int | None:
        """Let the first less urgent job of the same user take this one's turn; the turn that it gives up."""
        turn = turn_of(job)
        lesser = {
            "user": job["user"],
            "status": Status.QUEUED,
            "endpoint": job["endpoint"],
            "rank": {"$lt": turn - LOWEST_PRIORITY},
            "priority": {"$lt": job["priority"]},
        }
        before = self._jobs.find_one_and_update(
            lesser, [{"$set": {"rank": {"$subtract": [turn, "$priority"]}}}], sort=IN_LINE, hint="own line"
        )
        return turn_of(before) if before else None

    def lines(self, endpoints: list[str]) -> list[str]:
        """Those endpoints at which jobs wait, the one whose first has waited longest first."""
        if len(endpoints) == 1:
            return endpoints
        heads = []
        for name in endpoints:
            query = {"endpoint": name, "status": Status.QUEUED}
            head = self._jobs.find_one(query, {"queued_at": True}, sort=IN_LINE)
            heads += [(head["queued_at"], name)] if head else []
        return [name for _, name in sorted(heads)]

    def first(self, endpoint: str, but_not_of: list[str], batch_key: str | None) -> Job | None:
        """The first in an endpoint's line of all users but these; with `batch_key` the first of that key."""
        waiting: dict[str, Any] = {"endpoint": endpoint, "status": Status.QUEUED}
        if batch_key is not None:
            waiting["batch_key"] = batch_key
        if but_not_of:
            waiting["user"] = {"$nin": but_not_of}
        return self._jobs.find_one(waiting, {"user": True, "running_limit": True}, sort=IN_LINE)

    def window(self, endpoint: str) -> list[Job]:
        """What a claim needs to know of the first jobs in line to choose one of them."""
        waiting = {"endpoint": endpoint, "status": Status.QUEUED}
        wanted = ("models.id", "models.type", "overtaken", "user", "running_limit")
        return list(self._jobs.find(waiting, wanted).sort(IN_LINE).limit(WINDOW))

    def next_models(self, endpoint: str) -> list[dict[str, Any]]:
        """The models of the first jobs in line."""
        waiting = {"endpoint": endpoint, "status": Status.QUEUED}
        jobs = self._jobs.find(waiting, {"models": True}).sort(IN_LINE).limit(FORESEEN)
        return [model for job in jobs for model in job["models"]]

    def leave_to_pass(self, job_ids: list[str]) -> bool:
        """Whether all of these may be passed once more; each is then counted as passed."""
        few = {"_id": {"$in": job_ids}, "overtaken": {"$lt": MOST_OVERTAKEN}}
        return self._jobs.update_many(few, {"$inc": {"overtaken": 1}}).modified_count == len(job_ids)

    def claim(
        self,
        worker_id: str,
        endpoint: str,
        lease_seconds: int,
        *,
        job_id: str | None = None,
        batch_key: str | None = None,
        session: ClientSession | None = None,
    ) -> Job | None:
        """queued → running: the first in the endpoint's line, with the next attempt number and a lease.

        With `job_id` only that job, with `batch_key` only one that can be computed together with such ones.
        """
        at = now()
        query: dict[str, Any] = {"endpoint": endpoint, "status": Status.QUEUED}
        if job_id is not None:
            query["_id"] = job_id
        if batch_key is not None:
            query["batch_key"] = batch_key
        return self._jobs.find_one_and_update(
            query,
            {
                "$set": {
                    "status": Status.RUNNING,
                    "started_at": at,
                    "lease": {"worker": worker_id, "expires_at": at + timedelta(seconds=lease_seconds)},
                    "progress": {"step": 0, "steps": None, "image": 0, "images": None},
                },
                "$inc": {"attempt": 1},
                "$unset": {"timeline": "", "together": "", "preview": ""},
                "$push": noted(entry(Status.RUNNING, worker_id, at)),
            },
            sort=IN_LINE,
            return_document=ReturnDocument.AFTER,
            session=session,
        )

    # an endpoint's end

    def waiting_at(self, endpoint: str) -> list[Job]:
        """The jobs that have not begun at an endpoint."""
        query = {"endpoint": endpoint, "status": {"$in": [Status.CREATED, Status.QUEUED]}}
        return list(self._jobs.find(query).sort("queued_at", ASCENDING))

    def move(self, job_id: str, old: str, endpoint: dict[str, Any], turn: int) -> Job | None:
        """Let a waiting job wait at another endpoint; None when it has begun or moved meanwhile."""
        return self._jobs.find_one_and_update(
            {"_id": job_id, "endpoint": old, "status": {"$in": [Status.CREATED, Status.QUEUED]}},
            [
                {
                    "$set": {
                        "endpoint": endpoint["name"],
                        "endpoint_id": endpoint["id"],
                        "instance_type": endpoint["instance_type"],
                        "backend": endpoint["backend"],
                        "output_location": None,
                        "rank": {"$subtract": [turn, {"$ifNull": ["$priority", 0]}]},
                    }
                }
            ],
            return_document=ReturnDocument.AFTER,
        )

    def fail_waiting(self, job_id: str, endpoint: str, reason: str) -> Job | None:
        """→ failed, for a job that waits where nobody will ever come."""
        waiting = {"_id": job_id, "endpoint": endpoint, "status": {"$in": [Status.CREATED, Status.QUEUED]}}
        return self._fail(waiting, "inference", reason)
