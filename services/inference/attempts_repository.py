"""What a worker does to the job that it holds; each change names the attempt that makes it."""

from datetime import timedelta
from typing import Any

from pymongo import ReturnDocument

from services.common.times import now
from services.inference.records import LONGEST_HISTORY, Job, JobRecords
from services.inference.states import Status


class Attempts(JobRecords):
    """Changes between claim and end; a late attempt matches nothing."""

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

    def note(self, job_id: str, worker_id: str, attempt: int, changes: dict[str, Any]) -> None:
        """Keep what became known of the current attempt; the lease stays as it is."""
        self._jobs.update_one(_held(job_id, worker_id, attempt), {"$set": changes})

    def run_together(self, worker_id: str, job_ids: list[str]) -> None:
        """Note that a worker computes these as one batch."""
        held = {"_id": {"$in": job_ids}, "status": Status.RUNNING, "lease.worker": worker_id}
        self._jobs.update_many(held, {"$set": {"together": len(job_ids)}})

    def is_held(self, job_id: str, worker_id: str, attempt: int) -> bool:
        """Whether this is the current attempt."""
        return self._jobs.find_one(_held(job_id, worker_id, attempt), {"_id": True}) is not None

    def complete(
        self,
        job_id: str,
        worker_id: str,
        attempt: int,
        images: list[str],
        timings: dict[str, Any],
        folder: str = "",
    ) -> Job | None:
        """running → succeed, with its pictures, in a folder of the attempt's or in the job's own; None when
        the attempt is over."""
        at = now()
        return self._change(
            _held(job_id, worker_id, attempt),
            Status.SUCCEED,
            worker_id,
            at,
            {"completed_at": at, "image_names": images, "result_folder": folder, "timings": timings},
            drop_lease=True,
        )

    def fail(self, job_id: str, worker_id: str, attempt: int, reason: str) -> Job | None:
        """running → failed, by the request's own fault; None when the attempt is over."""
        return self._fail(_held(job_id, worker_id, attempt), worker_id, reason)

    def retry(self, job_id: str, worker_id: str, attempt: int, reason: str, max_attempts: int) -> Job | None:
        """running → queued for another attempt, or → failed after `max_attempts` failed ones."""
        return self._retry(_held(job_id, worker_id, attempt), worker_id, reason, max_attempts)

    def release(self, job_id: str, worker_id: str, attempt: int, reason: str) -> Job | None:
        """running → queued, given back; it does not count as a failed attempt."""
        return self._change(
            _held(job_id, worker_id, attempt),
            Status.QUEUED,
            worker_id,
            now(),
            {},
            drop_lease=True,
            reason=reason,
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
                    "history": {
                        "$slice": [
                            {"$concatArrays": ["$history", [entry | {"status": "$status"}]]},
                            -LONGEST_HISTORY,
                        ]
                    },
                }
            },
            {"$unset": ["lease"]},
        ]
        return self._jobs.find_one_and_update(expected, stages, return_document=ReturnDocument.AFTER)


def _held(job_id: str, worker_id: str, attempt: int) -> dict[str, Any]:
    """The current attempt of a worker: a late one matches nothing."""
    return {"_id": job_id, "status": Status.RUNNING, "attempt": attempt, "lease.worker": worker_id}
