"""Fair shares between users: a flood of one does not delay the others.

Start-time fair queueing (P. Goyal, H. Vin, H. Cheng, 1996): every endpoint has a virtual time, the turn of
the job that was claimed last; a job's turn is one more than the later of that and its user's previous turn.
Jobs are claimed by turn (and priority, scheduling.py), so users take turns however many jobs each has
waiting, and the line stays a plain sorted index.
"""

from typing import Any

from pymongo import ReturnDocument, WriteConcern
from pymongo.collection import Collection

from services.common.indexes import ensure_index
from services.common.mongo import Documents
from services.common.times import now


class FairShare:
    """Turns of jobs in the lines of endpoints; what is lost here costs fairness for a moment, never a job."""

    def __init__(self, database: Documents) -> None:
        # Not waited for by a majority: a lost turn is no lost job.
        quick = WriteConcern(w=1, j=False)
        self._shares: Collection[dict[str, Any]] = database["shares"].with_options(write_concern=quick)

    def ensure_indexes(self) -> None:
        """Forget users who have been away for a day."""
        ensure_index(self._shares, "used_at", expireAfterSeconds=86400)

    def next_turn(self, endpoint: str, user: str) -> int:
        """The turn of the user's next job at the endpoint."""
        line = self._shares.find_one({"_id": endpoint}) or {}
        later = {"$max": [{"$ifNull": ["$turn", 0]}, line.get("turn", 0)]}
        share = self._shares.find_one_and_update(
            {"_id": f"{endpoint}/{user}"},
            [{"$set": {"turn": {"$add": [later, 1]}, "used_at": now()}}],
            upsert=True,
            return_document=ReturnDocument.AFTER,
        )
        return int(share["turn"]) if share else 1

    def claimed(self, endpoint: str, turn: int) -> None:
        """Advance the endpoint's virtual time to the turn of a claimed job."""
        self._shares.update_one(
            {"_id": endpoint}, {"$max": {"turn": turn}, "$set": {"used_at": now()}}, upsert=True
        )
