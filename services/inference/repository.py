"""Reading jobs, and what clients do to them; see line_repository and attempts_repository for the rest."""

from datetime import datetime
from typing import Any

from pymongo import DESCENDING

from services.common.paging import after
from services.common.times import now
from services.inference.parameters import Summary
from services.inference.records import ALIVE, Job, JobRecords, entry
from services.inference.states import FINAL, SHOWN, Status


class Jobs(JobRecords):
    """The jobs: MongoDB is the truth about every one."""

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

    def standings(self, job_ids: list[str]) -> dict[str, Job]:
        """How these jobs stand, of those that are there."""
        wanted = dict.fromkeys(("status", "attempt", "progress", "error", "image_names"), True)
        found = self._jobs.find({"_id": {"$in": job_ids}, "status": ALIVE}, wanted)
        return {job["_id"]: job for job in found}

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
            "history": [entry(Status.CREATED, job["user"], at)],
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


def _owned_by(owner: str | None) -> dict[str, Any]:
    return {} if owner is None else {"user": owner}
