"""Every query and index of the collection `work`; each change of state is one atomic update."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from pymongo import ASCENDING, DESCENDING, ReturnDocument

from services.common.backends import BackendName
from services.common.indexes import ensure_index
from services.common.mongo import Documents
from services.common.paging import after
from services.common.times import now
from services.training import metrics
from services.training.states import ALIVE, Status

Work = dict[str, Any]
TRAINING, MERGE = "training", "merge"
NEWEST_FIRST = [("created", DESCENDING), ("_id", DESCENDING)]
MOST_LOSSES = 4000
THERE: dict[str, Any] = {"status": {"$ne": Status.DELETING}}


class WorkRepository:
    """Trainings and merges."""

    def __init__(self, database: Documents) -> None:
        self._work = database["work"]

    def ensure_indexes(self) -> None:
        """Make the indexes that the queries below stand on."""
        ensure_index(self._work, [("kind", ASCENDING), ("user", ASCENDING), *NEWEST_FIRST])
        ensure_index(self._work, [("status", ASCENDING), ("queued_at", ASCENDING)])
        ensure_index(self._work, "files.id")

    # clients

    def add(self, work: Work) -> Work:
        """Keep new work; raises DuplicateKeyError when its id is taken."""
        self._work.insert_one(work)
        return work

    def get(self, work_id: str) -> Work | None:
        """Work by its id, whoever asks."""
        return self._work.find_one({"_id": work_id} | THERE)

    def find(self, work_id: str, owner: str | None) -> Work | None:
        """A training; `owner` None sees everybody's."""
        return self._work.find_one({"_id": work_id, "kind": TRAINING} | THERE | _owned_by(owner))

    def page(
        self, owner: str | None, filters: Mapping[str, Any], limit: int, last_key: str | None
    ) -> list[Work]:
        """Up to `limit` + 1 trainings, newest first."""
        query = {"kind": TRAINING} | THERE | _owned_by(owner) | dict(filters) | after(last_key, "created")
        return list(self._work.find(query).sort(NEWEST_FIRST).limit(limit + 1))

    def queue(self, work_id: str, actor: str, changes: Mapping[str, Any]) -> Work | None:
        """created → queued; None when it is not created (any more)."""
        return self._change(
            {"_id": work_id, "status": Status.CREATED},
            Status.QUEUED,
            actor,
            {"queued_at": now(), "not_before": now()} | dict(changes),
        )

    def stop_waiting(self, work_id: str, actor: str) -> Work | None:
        """queued → stopped, for what no worker has and nothing is kept of."""
        waiting = {"_id": work_id, "status": Status.QUEUED, "state": None}
        return self._change(waiting, Status.STOPPED, actor, {"ended_at": now()})

    def want_stop(self, work_id: str) -> Work | None:
        """Its worker is to end it with what it has; None when it neither waits nor runs."""
        return self._work.find_one_and_update(
            {"_id": work_id, "status": {"$in": [Status.QUEUED, Status.RUNNING]}},
            {"$set": {"stop_wanted": True}},
            return_document=ReturnDocument.AFTER,
        )

    def mark_deleted(self, work_ids: Iterable[str], owner: str | None) -> list[Work]:
        """Take trainings out of sight; their workers hear that the attempt is over. As they were before."""
        gone = []
        for work_id in work_ids:
            query = {"_id": work_id, "kind": TRAINING} | THERE | _owned_by(owner)
            marked = {"$set": {"status": Status.DELETING, "deleted_at": now()}, "$unset": {"lease": ""}}
            found = self._work.find_one_and_update(query, marked, return_document=ReturnDocument.AFTER)
            gone += [found] if found else []
        return gone

    def forget(self, work_id: str) -> None:
        """Nothing is left of deleted work."""
        self._work.delete_one({"_id": work_id, "status": Status.DELETING})

    def give_up_creation(self, work_id: str) -> None:
        """Forget work that could not be created."""
        self._work.delete_one({"_id": work_id, "status": Status.CREATED})

    def uses(self, checkpoint_ids: Sequence[str]) -> list[str]:
        """Those of the checkpoints that waiting or running work needs."""
        query = {"status": {"$in": sorted(ALIVE)}, "files.id": {"$in": list(checkpoint_ids)}}
        return sorted(set(self._work.distinct("files.id", query)) & set(checkpoint_ids))

    # workers

    def waiting(self, instance_type: str) -> list[Work]:
        """What a worker of this type may take, the oldest first."""
        query = {
            "status": Status.QUEUED,
            "backend": BackendName.LOCAL,
            "not_before": {"$lte": now()},
            "instance_type": {"$in": [None, instance_type]},
        }
        return list(self._work.find(query).sort("queued_at", ASCENDING).limit(20))

    def for_sagemaker(self) -> list[Work]:
        """What is to be submitted to SageMaker or followed there, the oldest first."""
        waiting = {"status": Status.QUEUED, "not_before": {"$lte": now()}}
        query = {"backend": BackendName.SAGEMAKER, "$or": [waiting, {"status": Status.RUNNING}]}
        return list(self._work.find(query).sort("queued_at", ASCENDING).limit(500))

    def postpone(self, work_id: str, seconds: float, reason: str) -> None:
        """Leave queued work alone for a while."""
        later = now() + timedelta(seconds=seconds)
        self._work.update_one(
            {"_id": work_id, "status": Status.QUEUED}, {"$set": {"not_before": later, "waits_for": reason}}
        )

    def claim(self, work_id: str, worker_id: str, lease_seconds: int) -> Work | None:
        """queued → running with the next attempt number and a lease; None when another was faster."""
        at = now()
        return self._work.find_one_and_update(
            {"_id": work_id, "status": Status.QUEUED},
            {
                "$set": {
                    "status": Status.RUNNING,
                    "started_at": at,
                    "lease": {"worker": worker_id, "expires_at": at + timedelta(seconds=lease_seconds)},
                    "worker": worker_id,
                    "waits_for": None,
                },
                "$inc": {"attempt": 1},
                "$push": {"history": {"status": Status.RUNNING, "actor": worker_id, "at": at}},
            },
            return_document=ReturnDocument.AFTER,
        )

    def renew(
        self,
        held: Mapping[str, Any],
        lease_seconds: int,
        changes: Mapping[str, Any] | None = None,
        losses: Sequence[Any] = (),
        added: Mapping[str, Any] | None = None,
    ) -> Work | None:
        """Prolong the lease of the current attempt; None when the attempt is over."""
        expires_at = now() + timedelta(seconds=lease_seconds)
        update: dict[str, Any] = {"$set": {"lease.expires_at": expires_at} | dict(changes or {})}
        pushed: dict[str, Any] = dict(added or {})
        if losses:
            pushed["losses"] = {"$each": list(losses), "$slice": -MOST_LOSSES}
        if pushed:
            update["$push"] = pushed
        return self._work.find_one_and_update(dict(held), update, return_document=ReturnDocument.AFTER)

    def finish(self, held: Mapping[str, Any], actor: str, result: Mapping[str, Any]) -> Work | None:
        """running → finishing with the result's key; None when the attempt is over."""
        return self._change(held, Status.FINISHING, actor, {"result": dict(result)}, drop_lease=True)

    def stop_empty(self, held: Mapping[str, Any], actor: str) -> Work | None:
        """running → stopped, with nothing learned; None when the attempt is over."""
        return self._change(held, Status.STOPPED, actor, {"ended_at": now()}, drop_lease=True)

    def end(self, work_id: str, status: Status, reason: str | None = None) -> Work | None:
        """finishing → complete, stopped or failed."""
        changes: dict[str, Any] = {"ended_at": now()} | ({"error": reason} if reason else {})
        return self._change({"_id": work_id, "status": Status.FINISHING}, status, "training", changes)

    def fail(self, expected: Mapping[str, Any], actor: str, reason: str) -> Work | None:
        """→ failed, for good."""
        changes = {"ended_at": now(), "error": reason}
        return self._change(expected, Status.FAILED, actor, changes, drop_lease=True)

    def release(self, held: Mapping[str, Any], actor: str) -> Work | None:
        """running → queued by a worker that stops; it does not count as a failure."""
        return self._change(held, Status.QUEUED, actor, {"not_before": now()}, drop_lease=True)

    def retry(self, expected: Mapping[str, Any], actor: str, reason: str, most: int) -> Work | None:
        """running → queued for another attempt, or → failed after `most` failed ones; one update decides."""
        at = now()
        last = {"$gte": [{"$size": "$failures"}, most]}
        entry = {"actor": {"$literal": actor}, "at": at, "reason": {"$literal": reason}}
        told = {"$concat": [f"it failed in {most} attempts, the last time: ", {"$literal": reason}]}
        stages: list[dict[str, Any]] = [
            {"$set": {"failures": {"$concatArrays": ["$failures", [{"$literal": reason}]]}}},
            {"$set": {"status": {"$cond": [last, Status.FAILED, Status.QUEUED]}}},
            {
                "$set": {
                    "not_before": at,
                    "ended_at": {"$cond": [last, at, "$$REMOVE"]},
                    "error": {"$cond": [last, told, "$$REMOVE"]},
                    "history": {"$concatArrays": ["$history", [entry | {"status": "$status"}]]},
                }
            },
            {"$unset": ["lease"]},
        ]
        given_on = self._work.find_one_and_update(
            dict(expected), stages, return_document=ReturnDocument.AFTER
        )
        metrics.ended(given_on)
        return given_on

    # the sweep

    def expired(self) -> list[Work]:
        """Running work whose worker has gone silent."""
        query = {"status": Status.RUNNING, "lease.expires_at": {"$lt": now()}}
        return list(self._work.find(query).limit(100))

    def finishing(self) -> list[str]:
        """Ids of work whose result is to become a checkpoint."""
        return [one["_id"] for one in self._work.find({"status": Status.FINISHING}, {"_id": True})]

    def deleted(self) -> list[Work]:
        """Deleted work whose objects or checkpoint may still be there."""
        return list(self._work.find({"status": Status.DELETING}).limit(100))

    def half_created(self, seconds: float) -> list[Work]:
        """Merges whose creation a death has cut off."""
        query = {
            "kind": MERGE,
            "status": Status.CREATED,
            "created": {"$lt": now() - timedelta(seconds=seconds)},
        }
        return list(self._work.find(query).limit(100))

    def to_clean(self) -> list[Work]:
        """Ended work whose reserved checkpoint or files in S3 are still to be seen to."""
        query = {"status": {"$in": [Status.FAILED, Status.STOPPED, Status.COMPLETE]}, "cleaned": False}
        return list(self._work.find(query).limit(100))

    def cleaned(self, work_id: str) -> None:
        """Nothing is left to clean."""
        self._work.update_one({"_id": work_id}, {"$set": {"cleaned": True}})

    def _change(
        self,
        expected: Mapping[str, Any],
        status: Status,
        actor: str,
        values: Mapping[str, Any],
        *,
        drop_lease: bool = False,
    ) -> Work | None:
        update: dict[str, Any] = {
            "$set": {"status": status} | dict(values),
            "$push": {"history": {"status": status, "actor": actor, "at": now()}},
        }
        if drop_lease:
            update["$unset"] = {"lease": ""}
        changed = self._work.find_one_and_update(dict(expected), update, return_document=ReturnDocument.AFTER)
        metrics.ended(changed)
        return changed


def held_by(work_id: str, worker_id: str, attempt: int) -> dict[str, Any]:
    """The current attempt of a worker: a late one matches nothing."""
    return {"_id": work_id, "status": Status.RUNNING, "attempt": attempt, "lease.worker": worker_id}


def _owned_by(owner: str | None) -> dict[str, Any]:
    return {} if owner is None else {"user": owner}
