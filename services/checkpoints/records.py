"""What every group of queries works with: the two collections, and the parts that queries are made of."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

from pymongo import DESCENDING, ReturnDocument
from pymongo.client_session import ClientSession
from pymongo.errors import BulkWriteError

from services.checkpoints.checkpoint import INITIAL, STATUSES, Checkpoint, File, Viewer
from services.checkpoints.errors import NameTaken
from services.checkpoints.filenames import claim_of, final_name
from services.common.mongo import Documents

NEWEST_FIRST = [("created", DESCENDING), ("_id", DESCENDING)]
LIVE: dict[str, Any] = {"status": {"$in": list(STATUSES)}}


class Records:
    """The collections `checkpoints` and `names`."""

    def __init__(self, database: Documents) -> None:
        self._client = database.client
        self._checkpoints = database["checkpoints"]
        self._names = database["names"]  # _id is the name itself: its index makes names unique

    def _claim(self, checkpoint_id: str, names: Iterable[str], session: ClientSession) -> None:
        """Claim names inside a transaction. Raises NameTaken."""
        claims = {claim_of(name): final_name(name) for name in names}
        try:
            self._names.insert_many(
                [{"_id": claim, "checkpoint_id": checkpoint_id} for claim in claims], session=session
            )
        except BulkWriteError as error:
            first = error.details["writeErrors"][0]
            if first["code"] != 11000:
                raise
            raise NameTaken(claims[first["op"]["_id"]]) from None

    def _all(self, query: Mapping[str, Any], skip: int = 0, limit: int = 0) -> list[Checkpoint]:
        found = self._checkpoints.find(query).sort(NEWEST_FIRST).skip(skip).limit(limit)
        return [Checkpoint.from_document(one) for one in found]

    def _change(
        self,
        old: Mapping[str, Any],
        changes: Mapping[str, Any],
        session: ClientSession | None = None,
        push: Mapping[str, Any] | None = None,
    ) -> Checkpoint | None:
        """One atomic update of the checkpoint in the state `old`; None when there is none."""
        update = {"$set": dict(changes)} | ({"$push": dict(push)} if push else {})
        return read(
            self._checkpoints.find_one_and_update(
                old, update, return_document=ReturnDocument.AFTER, session=session
            )
        )


def visible_to(viewer: Viewer) -> dict[str, Any]:
    """The query part for what the viewer may see."""
    return {} if viewer.see_all else {"$or": ways_to_see(viewer)}


def ways_to_see(viewer: Viewer) -> list[dict[str, Any]]:
    """The query parts of which one must hold for somebody who does not see everything."""
    named = [viewer.username, *viewer.roles, "*"]
    return [{"creator": viewer.username}, {"allowed": {"$in": named}}]


def changeable_by(viewer: Viewer) -> dict[str, Any]:
    """The query part for what the viewer may change."""
    return {} if viewer.see_all else {"creator": viewer.username}


def unleased(moment: datetime) -> dict[str, Any]:
    """The query part for what nobody works on."""
    return {"$or": [{"lease": None}, {"lease.until": {"$lt": moment}}]}


def leased(checkpoint_id: str, token: str) -> dict[str, Any]:
    """The query for an Initial checkpoint that the holder of `token` works on."""
    return {"_id": checkpoint_id, "status": INITIAL, "lease.token": token}


def documents(files: Iterable[File]) -> list[dict[str, Any]]:
    """Files as MongoDB keeps them."""
    return [asdict(file) for file in files]


def read(document: dict[str, Any] | None) -> Checkpoint | None:
    """A found document as a checkpoint."""
    return Checkpoint.from_document(document) if document else None
