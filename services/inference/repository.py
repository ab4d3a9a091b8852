"""Every query and index of the collection `jobs`; each change of state is one atomic update."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from pymongo import ASCENDING, DESCENDING, ReturnDocument
from pymongo.collection import Collection

from services.common.mongo import Documents
from services.common.paging import after
from services.common.times import now
from services.inference.parameters import Summary
from services.inference.states import FINAL, SHOWN, Status

Job = dict[str, Any]
ALIVE = {"$ne": Status.DELETED}
IN_LINE = [("rank", ASCENDING), ("queued_at", ASCENDING)]


def _entry(status: Status, actor: str, at: datetime, reason: str | None = None) -> dict[str, Any]:
    return {"status": status, "actor": actor, "at": at} | ({"reason": reason} if reason else {})


class Jobs:
    """The jobs: MongoDB is the truth about every one."""

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

    # reading

    def find(self, job_id: str, owner: str | None) -> Job | None:
        """One job; `owner` None sees everybody's."""
        return self._jobs.find_one({"_id": job_id, "status": ALIVE} | _owned_by(owner))

    def page(
        self,
        owner: str | None,
        filters: dict[str, str | None],
        limit: int,
        last_key: str | None,
    ) -> list[Job]:
        """Jobs newest first, one more than `limit` when there is a next page."""
        query: dict[str, Any] = {"status": ALIVE} | _owned_by(owner)
        if filters.get("status"):
            query["status"] = {"$in": SHOWN[str(filters["status"])]}
        for name in ("task_type", "endpoint"):
            if filters.get(name):
                query[name] = filters[name]
        query |= after(last_key, "created_at")
        order = [("created_at", DESCENDING), ("_id", DESCENDING)]
        return list(self._jobs.find(query).sort(order).limit(limit + 1))

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

    def using(self, checkpoint_ids: list[str]) -> list[str]:
        """Those checkpoints that a waiting or running job needs."""
        query = {
            "status": {"$in": [Status.QUEUED, Status.RUNNING]},
            "models.id": {"$in": checkpoint_ids},
        }
        return sorted(set(self._jobs.distinct("models.id", query)) & set(checkpoint_ids))

    # a client's changes

    def add(self, job: Job) -> Job:
        """Keep a new job; raises DuplicateKeyError when its id is taken."""
        at = now()
        job |= {
            "status": Status.CREATED,
            "created_at": at,
            "attempt": 0,
            "failures": [],
            "history": [_entry(Status.CREATED, job["user"], at)],
        }
        self._jobs.insert_one(job)
        return job

    def queue(self, job_id: str, actor: str, summary: Summary, rank: int) -> Job | None:
        """created → queued; None when it is not created (any more)."""
        at = now()
        return self._change(
            {"_id": job_id, "status": Status.CREATED},
            Status.QUEUED,
            actor,
            at,
            {
                "queued_at": at,
                "rank": rank,
                "seed": summary.seed,
                "batch_key": summary.batch_key,
                "steps": summary.steps,
                "images": summary.images,
            },
        )

    def cancel(self, job_id: str, actor: str) -> Job | None:
        """→ cancelled, wherever it is; None when its life is over."""
        at = now()
        return self._change(
            {"_id": job_id, "status": {"$nin": list(FINAL)}},
            Status.CANCELLED,
            actor,
            at,
            {"completed_at": at},
            drop_lease=True,
        )

    def hide(self, job_ids: list[str], owner: str | None, actor: str) -> list[Job]:
        """→ deleted, for those that are there and the owner's; their objects are the caller's to remove."""
        hidden = []
        for job_id in job_ids:
            at = now()
            job = self._change(
                {"_id": job_id, "status": ALIVE} | _owned_by(owner),
                Status.DELETED,
                actor,
                at,
                {"lease": {"expires_at": at}},
            )
            hidden += [job] if job else []
        return hidden

    def hidden_before(self, moment: datetime) -> list[Job]:
        """Deleted jobs whose last worker can no longer write."""
        query = {"status": Status.DELETED, "lease.expires_at": {"$lt": moment}}
        return list(self._jobs.find(query).limit(500))

    def remove(self, job_id: str) -> None:
        """Forget a deleted job for good."""
        self._jobs.delete_one({"_id": job_id, "status": Status.DELETED})

    # a worker's changes

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
                "$push": {"history": _entry(Status.RUNNING, worker_id, at)},
            },
            sort=IN_LINE,
            return_document=ReturnDocument.AFTER,
        )

    def renew(
        self,
        job_id: str,
        worker_id: str,
        attempt: int,
        lease_seconds: int,
        changes: dict[str, Any] | None = None,
    ) -> Job | None:
        """Prolong the lease of the current attempt; None when the attempt is over."""
        expires_at = now() + timedelta(seconds=lease_seconds)
        return self._jobs.find_one_and_update(
            _held(job_id, worker_id, attempt),
            {"$set": {"lease.expires_at": expires_at} | (changes or {})},
            return_document=ReturnDocument.AFTER,
        )

    def is_held(self, job_id: str, worker_id: str, attempt: int) -> bool:
        """Whether this is the current attempt."""
        return self._jobs.find_one(_held(job_id, worker_id, attempt), {"_id": True}) is not None

    def complete(
        self, job_id: str, worker_id: str, attempt: int, images: list[str], timings: dict[str, Any]
    ) -> Job | None:
        """running → succeed, with its pictures; None when the attempt is over."""
        at = now()
        return self._change(
            _held(job_id, worker_id, attempt),
            Status.SUCCEED,
            worker_id,
            at,
            {"completed_at": at, "image_names": images, "timings": timings},
            drop_lease=True,
        )

    def fail(self, job_id: str, worker_id: str, attempt: int, reason: str) -> Job | None:
        """running → failed, by the request's own fault; None when the attempt is over."""
        return self._fail(_held(job_id, worker_id, attempt), worker_id, reason)

    def retry(self, job_id: str, worker_id: str, attempt: int, reason: str, max_attempts: int) -> Job | None:
        """running → queued for another attempt, or → failed after `max_attempts` failed ones."""
        return self._retry(_held(job_id, worker_id, attempt), worker_id, reason, max_attempts)

    def release(self, job_id: str, worker_id: str, attempt: int) -> Job | None:
        """running → queued, given back by a worker that stops; it does not count as a failed attempt."""
        return self._change(
            _held(job_id, worker_id, attempt),
            Status.QUEUED,
            worker_id,
            now(),
            {},
            drop_lease=True,
            reason="given back by a worker that stops",
        )

    def requeue_expired(self, max_attempts: int) -> list[Job]:
        """Give every job whose lease has run out to the next worker, or fail it after its last attempt."""
        changed = []
        expired = {"status": Status.RUNNING, "lease.expires_at": {"$lt": now()}}
        for job in self._jobs.find(expired).limit(500):
            # The lease is named again: one that was renewed meanwhile stays.
            query = expired | {"_id": job["_id"], "attempt": job["attempt"]}
            reason = f"worker {job['lease']['worker']} went silent"
            if given_on := self._retry(query, "inference", reason, max_attempts):
                changed.append(given_on)
        return changed

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
                    "rank": rank,
                }
            },
            return_document=ReturnDocument.AFTER,
        )

    def fail_waiting(self, job_id: str, endpoint: str, reason: str) -> Job | None:
        """→ failed, for a job that waits where nobody will ever come."""
        waiting = {"_id": job_id, "endpoint": endpoint, "status": {"$in": [Status.CREATED, Status.QUEUED]}}
        return self._fail(waiting, "inference", reason)

    # the one shape of every change of state

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
            "$push": {"history": _entry(status, actor, at, reason)},
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

    def _retry(self, expected: dict[str, Any], actor: str, reason: str, max_attempts: int) -> Job | None:
        """One update decides by the number of failures so far whether the job waits again or has failed."""
        at = now()
        failures: dict[str, Any] = {"$concatArrays": ["$failures", [{"$literal": reason}]]}
        last = {"$gte": [{"$size": "$failures"}, max_attempts]}
        told = {
            "$concat": [
                f"the job failed in {max_attempts} attempts: ",
                {
                    "$reduce": {
                        "input": "$failures",
                        "initialValue": "",
                        "in": {
                            "$concat": [
                                "$$value",
                                {"$cond": [{"$eq": ["$$value", ""]}, "", "; "]},
                                "$$this",
                            ]
                        },
                    }
                },
            ]
        }
        entry = {"actor": {"$literal": actor}, "at": at, "reason": {"$literal": reason}}
        stages: list[dict[str, Any]] = [
            {"$set": {"failures": failures}},
            {"$set": {"status": {"$cond": [last, Status.FAILED, Status.QUEUED]}}},
            {
                "$set": {
                    "completed_at": {"$cond": [last, at, "$$REMOVE"]},
                    "error": {"$cond": [last, told, "$$REMOVE"]},
                    "history": {"$concatArrays": ["$history", [entry | {"status": "$status"}]]},
                }
            },
            {"$unset": ["lease"]},
        ]
        return self._jobs.find_one_and_update(expected, stages, return_document=ReturnDocument.AFTER)


def _owned_by(owner: str | None) -> dict[str, Any]:
    return {} if owner is None else {"user": owner}


def _held(job_id: str, worker_id: str, attempt: int) -> dict[str, Any]:
    """The current attempt of a worker: a late one matches nothing."""
    return {"_id": job_id, "status": Status.RUNNING, "attempt": attempt, "lease.worker": worker_id}
