"""Places that users have a limited number of: every count is one of the jobs themselves, so none can leak.

A change that needs a place runs in a transaction that writes the user's guard document: MongoDB lets one of
two such transactions through and runs the other again on what the first has left, so that counting and taking
are one step over all instances. A process that dies in between has taken nothing.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, TypeVar

from pymongo import ASCENDING
from pymongo.client_session import ClientSession
from pymongo.collection import Collection

from services.common.indexes import ensure_index
from services.common.mongo import Documents
from services.common.times import now
from services.inference.errors import TooManyImages, TooManyWaiting
from services.inference.limits import Limits
from services.inference.records import Job
from services.inference.states import Status

T = TypeVar("T")
WITHOUT_PICTURES = {
    "status": {"$in": [Status.FAILED, Status.CANCELLED, Status.DELETED]},
    "image_names": {"$exists": False},
}


class Quotas:
    """Counts under a user's guard; `spent` remembers the images that each job of today was started for."""

    def __init__(self, database: Documents) -> None:
        self._client = database.client
        self._jobs: Collection[Job] = database["jobs"]
        self._guards: Collection[dict[str, Any]] = database["guards"]
        self._spent: Collection[dict[str, Any]] = database["spent"]

    def ensure_indexes(self) -> None:
        """Make the index of a user's day; days that are over are forgotten."""
        ensure_index(self._spent, [("user", ASCENDING), ("day", ASCENDING)])
        ensure_index(self._spent, "at", expireAfterSeconds=2 * 86400)

    def start(self, job: Job, images: int, limits: Limits, queue: Callable[[ClientSession | None], T]) -> T:
        """What `queue` makes of the job, when a place in line and the day's images are left for its user.

        Raises TooManyWaiting, TooManyImages.
        """
        if limits.waiting is None and limits.images_per_day is None:
            return queue(None)
        try:
            return self._start(job, images, limits, queue)
        except TooManyImages:
            if not self._give_back(job["user"]):
                raise
            return self._start(job, images, limits, queue)

    def _start(self, job: Job, images: int, limits: Limits, queue: Callable[[ClientSession | None], T]) -> T:
        def take(session: ClientSession) -> T:
            queued = queue(session)
            if queued is None:
                return queued
            if limits.waiting is not None:
                self._check_waiting(job["user"], limits.waiting, session)
            if limits.images_per_day is not None:
                self._spend(job, images, limits.images_per_day, session)
            return queued

        return self._alone(job["user"], take)

    def _check_waiting(self, user: str, limit: int, session: ClientSession) -> None:
        waiting = {"user": user, "status": Status.QUEUED}
        count = self._jobs.count_documents(waiting, limit=limit + 1, session=session, hint="own line")
        if count > limit:
            raise TooManyWaiting(limit)

    def _spend(self, job: Job, images: int, limit: int, session: ClientSession) -> None:
        today = now()
        user_day = {"user": job["user"], "day": _day(today)}
        total: list[dict[str, Any]] = [
            {"$match": user_day},
            {"$group": {"_id": None, "images": {"$sum": "$images"}}},
        ]
        spent = sum(group["images"] for group in self._spent.aggregate(total, session=session))
        if spent + images > limit:
            raise TooManyImages(limit, spent, images, _seconds_left(today))
        self._spent.insert_one(user_day | {"_id": job["_id"], "images": images, "at": today}, session=session)

    def _give_back(self, user: str) -> int:
        """Take back what was spent today on jobs that ended without a picture; how many of them."""
        entries = self._spent.find({"user": user, "day": _day(now())}, {"_id": True})
        ids = [entry["_id"] for entry in entries]
        in_vain = [
            job["_id"] for job in self._jobs.find({"_id": {"$in": ids}} | WITHOUT_PICTURES, {"_id": 1})
        ]
        return self._spent.delete_many({"_id": {"$in": in_vain}}).deleted_count if in_vain else 0

    def forget(self, job: Job) -> None:
        """A job's record is about to go: what was spent on it comes back when it made no picture."""
        if "image_names" not in job:
            self._spent.delete_one({"_id": job["_id"]})

    # running jobs

    def at_their_limit(self) -> list[str]:
        """Users who have as many running jobs as they may."""
        stages: list[dict[str, Any]] = [
            {"$match": {"status": Status.RUNNING, "running_limit": {"$exists": True}}},
            {"$group": {"_id": "$user", "running": {"$sum": 1}, "limit": {"$min": "$running_limit"}}},
            {"$match": {"$expr": {"$gte": ["$running", "$limit"]}}},
        ]
        return [group["_id"] for group in self._jobs.aggregate(stages, hint="leases")]

    def claim(self, job: Job, claim: Callable[[ClientSession], Job | None]) -> Job | None:
        """What `claim` makes of a job whose user may have `running_limit` running. Raises AtLimit."""

        def take(session: ClientSession) -> Job | None:
            claimed = claim(session)
            running = {"user": job["user"], "status": Status.RUNNING}
            limit = job["running_limit"]
            if claimed is not None and (
                self._jobs.count_documents(running, limit=limit + 1, session=session, hint="own line") > limit
            ):
                raise AtLimit
            return claimed

        return self._alone(job["user"], take)

    def _alone(self, user: str, change: Callable[[ClientSession], T]) -> T:
        """Run a change in a transaction that no other of this user's overlaps."""
        self._guards.update_one({"_id": user}, {"$setOnInsert": {"changes": 0}}, upsert=True)

        def guarded(session: ClientSession) -> T:
            self._guards.update_one({"_id": user}, {"$inc": {"changes": 1}}, session=session)
            return change(session)

        with self._client.start_session() as session:
            return session.with_transaction(guarded)


class AtLimit(Exception):
    """The user has as many running jobs as they may: the claim is undone."""


def _day(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d}"


def _seconds_left(moment: datetime) -> int:
    midnight = (moment + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    return int((midnight - moment).total_seconds()) + 1
