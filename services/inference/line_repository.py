"""The lines of jobs that wait at endpoints: claims, positions, and what becomes of a line that ends."""

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from pymongo import ASCENDING, ReturnDocument

from services.common.times import now
from services.inference.records import IN_LINE, Job, JobRecords, entry
from services.inference.states import Status


class Line(JobRecords):
    """Who waits where, and who is next."""

    def position(self, job: Job) -> int | None:
        """The job's place in its endpoint's line, from 1; None when it does not wait."""
        if job["status"] != Status.QUEUED:
            return None
        rank = job["rank"]
        before = {
            "endpoint": job["endpoint"],
            "status": Status.QUEUED,
            "$or": [{"rank": {"$lt": rank}}, {"rank": rank, "queued_at": {"$lt": job["queued_at"]}}],
        }
        return self._jobs.count_documents(before) + 1

    def backlog(self, endpoints: Iterable[str]) -> dict[str, dict[str, int]]:
        """How many jobs wait and run at each endpoint."""
        counts = {name: {"waiting": 0, "running": 0} for name in endpoints}
        stages: list[dict[str, Any]] = [
            {
                "$match": {
                    "endpoint": {"$in": list(counts)},
                    "status": {"$in": [Status.QUEUED, Status.RUNNING]},
                }
            },
            {"$group": {"_id": {"endpoint": "$endpoint", "status": "$status"}, "count": {"$sum": 1}}},
        ]
        for group in self._jobs.aggregate(stages):
            kind = "waiting" if group["_id"]["status"] == Status.QUEUED else "running"
            counts[group["_id"]["endpoint"]][kind] = group["count"]
        return counts

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

    def claim(
        self, worker_id: str, endpoint: str, lease_seconds: int, batch_key: str | None = None
    ) -> Job | None:
        """queued → running: the first in the endpoint's line, with the next attempt number and a lease.

        With `batch_key` only a job that can be computed together with one of that key.
        """
        at = now()
        query: dict[str, Any] = {"endpoint": endpoint, "status": Status.QUEUED}
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
                "$unset": {"timeline": ""},
                "$push": {"history": entry(Status.RUNNING, worker_id, at)},
            },
            sort=IN_LINE,
            return_document=ReturnDocument.AFTER,
        )

    # an endpoint's end

    def waiting_at(self, endpoint: str) -> list[Job]:
        """The jobs that have not begun at an endpoint."""
        query = {"endpoint": endpoint, "status": {"$in": [Status.CREATED, Status.QUEUED]}}
        return list(self._jobs.find(query).sort("queued_at", ASCENDING))

    def move(self, job_id: str, old: str, endpoint: dict[str, Any], rank: int) -> Job | None:
        """Let a waiting job wait at another endpoint; None when it has begun or moved meanwhile."""
        return self._jobs.find_one_and_update(
            {"_id": job_id, "endpoint": old, "status": {"$in": [Status.CREATED, Status.QUEUED]}},
            {
                "$set": {
                    "endpoint": endpoint["name"],
                    "endpoint_id": endpoint["id"],
                    "instance_type": endpoint["instance_type"],
                    "backend": endpoint["backend"],
                    "output_location": None,
                    "rank": rank,
                }
            },
            return_document=ReturnDocument.AFTER,
        )

    def fail_waiting(self, job_id: str, endpoint: str, reason: str) -> Job | None:
        """→ failed, for a job that waits where nobody will ever come."""
        waiting = {"_id": job_id, "endpoint": endpoint, "status": {"$in": [Status.CREATED, Status.QUEUED]}}
        return self._fail(waiting, "inference", reason)
