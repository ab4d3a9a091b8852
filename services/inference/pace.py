"""How long jobs took at each endpoint lately; losing it costs an estimate, never a job."""

from typing import Any

from pymongo import WriteConcern
from pymongo.collection import Collection

from services.common.indexes import ensure_index
from services.common.mongo import Documents
from services.common.times import now

# The share of the newest job in the mean: the last ten jobs or so decide it.
NEWEST = 0.2


class Pace:
    """The collection `paces`: a moving mean for each endpoint."""

    def __init__(self, database: Documents) -> None:
        quick = WriteConcern(w=1, j=False)
        self._paces: Collection[dict[str, Any]] = database["paces"].with_options(write_concern=quick)

    def ensure_indexes(self) -> None:
        """Forget endpoints where nothing has been computed for thirty days."""
        ensure_index(self._paces, "at", expireAfterSeconds=30 * 86400)

    def took(self, endpoint: str, seconds: float) -> None:
        """A job at the endpoint has taken so long."""
        mean = {"$ifNull": ["$seconds", seconds]}
        moved = {"$add": [{"$multiply": [mean, 1 - NEWEST]}, seconds * NEWEST]}
        self._paces.update_one({"_id": endpoint}, [{"$set": {"seconds": moved, "at": now()}}], upsert=True)

    def seconds(self, endpoint: str) -> float | None:
        """The mean, None when nothing has been computed there lately."""
        pace = self._paces.find_one({"_id": endpoint})
        return float(pace["seconds"]) if pace else None
