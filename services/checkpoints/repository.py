"""The queries of what requests ask: creation, deletion, reading, changes of state; and the indexes."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from pymongo import ASCENDING
from pymongo.client_session import ClientSession
from pymongo.errors import DuplicateKeyError

from services.checkpoints.checkpoint import ACTIVE, DELETING, FAILED, INITIAL, UPLOADING, Checkpoint, Viewer
from services.checkpoints.errors import KeyReused
from services.checkpoints.move_records import MoveRecords
from services.checkpoints.records import (
    LIVE,
    NEWEST_FIRST,
    changeable_by,
    read,
    unleased,
    visible_to,
    ways_to_see,
)
from services.checkpoints.work_records import WorkRecords
from services.common.indexes import ensure_index
from services.common.paging import after
from services.common.times import now


class Repository(WorkRecords, MoveRecords):
    """Checkpoints and the names of their files."""

    def ensure_indexes(self) -> None:
        """Make the indexes; those that are there stay."""
        ensure_index(self._checkpoints, NEWEST_FIRST)
        ensure_index(self._checkpoints, [("creator", ASCENDING), *NEWEST_FIRST])
        ensure_index(self._checkpoints, [("allowed", ASCENDING), *NEWEST_FIRST])
        ensure_index(self._checkpoints, [("status", ASCENDING), *NEWEST_FIRST])
        ensure_index(self._checkpoints, [("type", ASCENDING), *NEWEST_FIRST])
        ensure_index(self._checkpoints, "files.name")
        ensure_index(self._checkpoints, "trash.since", sparse=True)
        ensure_index(
            self._checkpoints,
            [("request_key.caller", ASCENDING), ("request_key.key", ASCENDING)],
            unique=True,
            partialFilterExpression={"request_key.key": {"$exists": True}},
        )
        ensure_index(self._names, "checkpoint_id")

    # Creation and deletion: a checkpoint and the claims of its names come and go together.

    def create(self, checkpoint: Checkpoint) -> None:
        """Add a checkpoint and claim the names of its files. Raises NameTaken and KeyReused."""

        def add(session: ClientSession) -> None:
            if checkpoint.names:
                self._claim(checkpoint.id, checkpoint.names, session)
            self._checkpoints.insert_one(checkpoint.to_document(), session=session)

        with self._client.start_session() as session:
            try:
                session.with_transaction(add)
            except DuplicateKeyError:
                raise KeyReused from None

    def mark_deleted(self, ids: Iterable[str], viewer: Viewer) -> list[Checkpoint]:
        """Take the viewer's own checkpoints among `ids` out of sight and free their names; what was taken."""

        def mark(session: ClientSession) -> list[Checkpoint]:
            chosen = {"_id": {"$in": list(ids)}, **LIVE, **changeable_by(viewer)}
            found = [Checkpoint.from_document(one) for one in self._checkpoints.find(chosen, session=session)]
            self._mark([checkpoint.id for checkpoint in found], session)
            return found

        with self._client.start_session() as session:
            return session.with_transaction(mark)

    def mark_stalled(self, checkpoint: Checkpoint) -> bool:
        """Take an upload that nobody touched since it was read out of sight; False when somebody did."""

        def mark(session: ClientSession) -> bool:
            untouched = {"_id": checkpoint.id, "status": INITIAL, "touched": checkpoint.touched}
            if self._checkpoints.find_one(untouched, session=session) is None:
                return False
            self._mark([checkpoint.id], session)
            return True

        with self._client.start_session() as session:
            return session.with_transaction(mark)

    def _mark(self, ids: list[str], session: ClientSession) -> None:
        self._checkpoints.update_many(
            {"_id": {"$in": ids}, **LIVE},
            {"$set": {"status": DELETING, "touched": now()}, "$unset": {"request_key": True}},
            session=session,
        )
        self._names.delete_many({"checkpoint_id": {"$in": ids}}, session=session)

    def remove(self, checkpoint_id: str) -> None:
        """Forget a checkpoint whose objects are gone."""
        self._checkpoints.delete_one({"_id": checkpoint_id, "status": DELETING})

    def leftovers(self) -> list[Checkpoint]:
        """Deleted checkpoints whose objects are still there and on which nobody works."""
        return self._all({"status": DELETING, **unleased(now())})

    def find_request(self, caller: str, key: str, since: datetime) -> Checkpoint | None:
        """The checkpoint that the caller created under this key; a key older than `since` is freed."""
        asked = {"request_key.caller": caller, "request_key.key": key}
        self._checkpoints.update_one(asked | {"created": {"$lt": since}}, {"$unset": {"request_key": True}})
        return read(self._checkpoints.find_one(asked))

    # Reading

    def get(self, checkpoint_id: str) -> Checkpoint | None:
        """A checkpoint, whoever asks; also one that is being deleted."""
        return read(self._checkpoints.find_one({"_id": checkpoint_id}))

    def find_visible(self, checkpoint_id: str, viewer: Viewer) -> Checkpoint | None:
        """A live checkpoint that the viewer may see."""
        return read(self._checkpoints.find_one({"_id": checkpoint_id, **LIVE, **visible_to(viewer)}))

    def list_page(
        self, viewer: Viewer, filters: Mapping[str, Any], limit: int, key: str | None, skip: int = 0
    ) -> list[Checkpoint]:
        """Up to `limit` + 1 checkpoints that the viewer may see, newest first."""
        return self._all(_chosen(viewer, filters, after(key, "created")), skip=skip, limit=limit + 1)

    def count(self, viewer: Viewer, filters: Mapping[str, Any]) -> int:
        """How many checkpoints the viewer may see."""
        return self._checkpoints.count_documents(_chosen(viewer, filters))

    def find_usable(self, viewer: Viewer, models: Mapping[str, Iterable[str]]) -> list[Checkpoint]:
        """The Active checkpoints with files of these types and names that the viewer may use."""
        asked = [{"type": kind, "files.name": {"$in": list(names)}} for kind, names in models.items()]
        if not asked:
            return []
        return self._all({"$and": [{"status": ACTIVE}, {"$or": asked}, visible_to(viewer)]})

    def promise(self, found: Iterable[Checkpoint], seconds: float) -> list[Checkpoint]:
        """Those that are still Active: from now on their objects stay for so long, whoever deletes them.

        A promise that is good for half of that is not written anew: popular checkpoints cost no writing.
        """
        moment, promised = now(), []
        until = moment + timedelta(seconds=seconds)
        for one in found:
            if one.promised_until and one.promised_until > moment + timedelta(seconds=seconds / 2):
                promised.append(one)
            elif kept := self._change({"_id": one.id, "status": ACTIVE}, {"promised_until": until}):
                promised.append(kept)
        return promised

    def usable_names(self, viewer: Viewer, kind: str, limit: int) -> list[str]:
        """The names of the Active files of a type that the viewer may use, newest first."""
        query = {"$and": [{"status": ACTIVE, "type": kind}, visible_to(viewer)]}
        return [name for checkpoint in self._all(query, limit=limit) for name in checkpoint.names][:limit]

    def stalled(self, before: datetime) -> list[Checkpoint]:
        """Uploads that nobody touched since `before`."""
        return self._all(
            {
                "status": INITIAL,
                "stage": {"$in": [UPLOADING, FAILED]},
                "touched": {"$lt": before},
                **unleased(now()),
            }
        )

    def change_status(self, checkpoint_id: str, old: str, new: str) -> Checkpoint | None:
        """`old` becomes `new`; None when it is not `old`."""
        return self._change({"_id": checkpoint_id, "status": old}, {"status": new, "touched": now()})

    def edit(self, checkpoint_id: str, changes: Mapping[str, Any]) -> Checkpoint | None:
        """Set `params`, `allowed`, `creator`; None when the checkpoint is gone."""
        return self._change({"_id": checkpoint_id, **LIVE}, changes)

    def touch(self, checkpoint: Checkpoint, moment: datetime) -> None:
        """Note that the upload was alive at `moment`."""
        self._checkpoints.update_one({"_id": checkpoint.id, "status": INITIAL}, {"$max": {"touched": moment}})


def _chosen(viewer: Viewer, filters: Mapping[str, Any], *more: Mapping[str, Any]) -> dict[str, Any]:
    """The query of a list; each way to see something is asked for whole.

    MongoDB then reads each by the index that fits it and merges them in the order of the list, where it would
    else read and sort all that the viewer sees.
    """
    parts: list[Mapping[str, Any]] = [
        {"status": {"$in": filters["status"]}} if filters.get("status") else LIVE
    ]
    if filters.get("types"):
        parts.append({"type": {"$in": filters["types"]}})
    if filters.get("roles"):
        parts.append({"allowed": {"$in": filters["roles"]}})
    if filters.get("username"):
        parts.append({"creator": filters["username"]})
    parts += [one for one in more if one]
    if viewer.see_all:
        return {"$and": parts}
    return {"$or": [{"$and": [way, *parts]} for way in ways_to_see(viewer)]}
