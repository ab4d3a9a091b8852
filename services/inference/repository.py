"""Reading jobs, and what clients do to them; see line_repository and attempts_repository for the rest."""

from datetime import datetime, timedelta
from typing import Any

from pymongo import ASCENDING
from pymongo.client_session import ClientSession
from pymongo.cursor import Cursor

from services.common import tracing
from services.common.paging import after
from services.common.times import now
from services.inference.parameters import Summary
from services.inference.records import ALIVE, NEWEST_FIRST, Job, JobRecords, entry, list_index, owned_by
from services.inference.scheduling import rank_of
from services.inference.states import FINAL, SHOWN, TASK_TYPES, Status

ROUND = 500
STARTED_WITHIN = timedelta(hours=1)  # after its creation; a job that nobody starts keeps no checkpoint


class Jobs(JobRecords):
    """The jobs: MongoDB is the truth about every one."""

    # reading

    def find(self, job_id: str, owner: str | None) -> Job | None:
        """One job; `owner` None sees everybody's."""
        return self._jobs.find_one({"_id": job_id, "status": ALIVE} | owned_by(owner))

    def page(
        self,
        owner: str | None,
        filters: dict[str, str | None],
        limit: int,
        last_key: str | None,
    ) -> list[Job]:
        """Jobs newest first, one more than `limit` when there is a next page."""
        return list(self.listing(owner, filters, last_key).limit(limit + 1))

    def listing(self, owner: str | None, filters: dict[str, str | None], last_key: str | None) -> Cursor[Job]:
        """All that a list has after `last_key`, newest first, read from an index in that order."""
        status, task_type, endpoint = (filters.get(name) for name in ("status", "task_type", "endpoint"))
        states = SHOWN[status] if status else [state for group in SHOWN.values() for state in group]
        query: dict[str, Any] = owned_by(owner) | {
            "status": {"$in": states},
            "task_type": {"$in": [task_type] if task_type else TASK_TYPES},
        }
        if endpoint:
            query["endpoint"] = endpoint
        query |= after(last_key, "created_at")
        index = list_index(owner is not None, at_endpoint=bool(endpoint))
        return self._jobs.find(query).sort(NEWEST_FIRST).hint(index)

    def standings(self, job_ids: list[str]) -> dict[str, Job]:
        """How these jobs stand, of those that are there."""
        wanted = dict.fromkeys(("status", "attempt", "progress", "error", "image_names"), True)
        found = self._jobs.find({"_id": {"$in": job_ids}, "status": ALIVE}, wanted)
        return {job["_id"]: job for job in found}

    def unannounced(self) -> list[Job]:
        """Jobs that are over, and whose end somebody wants to hear of."""
        over = {"$in": [Status.SUCCEED, Status.FAILED, Status.CANCELLED]}
        return list(self._jobs.find({"webhooks_due": True, "status": over}).limit(500))

    def announced(self, job_id: str) -> None:
        """Everybody who wants to hear of the job's end is going to."""
        self._jobs.update_one({"_id": job_id}, {"$unset": {"webhooks_due": ""}})

    def using(self, checkpoint_ids: list[str]) -> list[str]:
        """Those checkpoints that a waiting or running job needs, or one that is about to be started."""
        lately = {"status": Status.CREATED, "created_at": {"$gt": now() - STARTED_WITHIN}}
        alive = {"status": {"$in": [Status.QUEUED, Status.RUNNING]}}
        query = {"models.id": {"$in": checkpoint_ids}, "$or": [alive, lately]}
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
            "history": [entry(Status.CREATED, job["user"], at)],
        }
        self._jobs.insert_one(job)
        return job

    def queue(
        self,
        job_id: str,
        actor: str,
        sealed_parameters: str,
        summary: Summary,
        turn: int,
        priority: int,
        running_limit: int | None = None,
        session: ClientSession | None = None,
    ) -> Job | None:
        """created → queued; None when it is not created (any more)."""
        at = now()
        values: dict[str, Any] = {
            "queued_at": at,
            "sealed_parameters": sealed_parameters,
            "priority": priority,
            "rank": rank_of(turn, priority),
            "overtaken": 0,
            "seed": summary.seed,
            "batch_key": summary.batch_key,
            "steps": summary.steps,
            "images": summary.images,
            "picture_pixels": summary.width * summary.height,
        }
        if trace := tracing.traceparent():
            values["traceparent"] = trace
        if running_limit is not None:
            values["running_limit"] = running_limit
        expected = {"_id": job_id, "status": Status.CREATED}
        return self._change(expected, Status.QUEUED, actor, at, values, session=session)

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
        found = (self._hide({"_id": job_id, "status": ALIVE} | owned_by(owner), actor) for job_id in job_ids)
        return [job for job in found if job is not None]

    def hide_outlived(self, job: Job, actor: str) -> Job | None:
        """→ deleted, for a job that is still as it was when it was found to be too old."""
        return self._hide({"_id": job["_id"], "status": job["status"]}, actor)

    def _hide(self, expected: dict[str, Any], actor: str) -> Job | None:
        at = now()
        return self._change(expected, Status.DELETED, actor, at, {"lease": {"expires_at": at}})

    def ended_before(self, moment: datetime) -> list[Job]:
        """Jobs that were over by then, the oldest first; a round's worth."""
        over = {"status": {"$in": [Status.SUCCEED, Status.FAILED, Status.CANCELLED]}}
        query = over | {"completed_at": {"$lt": moment}}
        return list(self._jobs.find(query).sort("completed_at", ASCENDING).limit(ROUND).hint("ends"))

    def unstarted_before(self, moment: datetime) -> list[Job]:
        """Jobs that were created before then, and that nobody has started; a round's worth."""
        query = {
            "status": Status.CREATED,
            "task_type": {"$in": TASK_TYPES},
            "created_at": {"$lt": moment},
        }
        return list(self._jobs.find(query).limit(ROUND).hint(list_index(owned=False, at_endpoint=False)))

    def hidden_before(self, moment: datetime) -> list[Job]:
        """Deleted jobs whose last worker can no longer write."""
        query = {"status": Status.DELETED, "lease.expires_at": {"$lt": moment}}
        return list(self._jobs.find(query).limit(500))

    def remove(self, job_id: str) -> None:
        """Forget a deleted job for good."""
        self._jobs.delete_one({"_id": job_id, "status": Status.DELETED})
