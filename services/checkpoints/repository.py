"""Every query of the collections `checkpoints` and `names`, and their indexes."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from pymongo import ASCENDING, DESCENDING, ReturnDocument
from pymongo.client_session import ClientSession
from pymongo.errors import BulkWriteError, DuplicateKeyError

from services.checkpoints.checkpoint import (
    ACTIVE,
    DELETING,
    DISABLED,
    FAILED,
    INITIAL,
    STATUSES,
    UPLOADING,
    Checkpoint,
    File,
    Viewer,
)
from services.checkpoints.errors import KeyReused, NameTaken
from services.checkpoints.filenames import claim_of
from services.common.mongo import Documents
from services.common.paging import after
from services.common.times import now

NEWEST_FIRST = [("created", DESCENDING), ("_id", DESCENDING)]
LIVE: dict[str, Any] = {"status": {"$in": list(STATUSES)}}


def visible_to(viewer: Viewer) -> dict[str, Any]:
    """The query part for what the viewer may see."""
    if viewer.see_all:
        return {}
    named = [viewer.username, *viewer.roles, "*"]
    return {"$or": [{"creator": viewer.username}, {"allowed": {"$in": named}}]}


def changeable_by(viewer: Viewer) -> dict[str, Any]:
    """The query part for what the viewer may change."""
    return {} if viewer.see_all else {"creator": viewer.username}


class Repository:
    """Checkpoints and the names of their files."""

    def __init__(self, database: Documents) -> None:
        self._client = database.client
        self._checkpoints = database["checkpoints"]
        self._names = database["names"]  # _id is the name itself: its index makes names unique

    def ensure_indexes(self) -> None:
        """Make the indexes; those that are there stay."""
        self._checkpoints.create_index(NEWEST_FIRST)
        self._checkpoints.create_index([("creator", ASCENDING), *NEWEST_FIRST])
        self._checkpoints.create_index([("allowed", ASCENDING), *NEWEST_FIRST])
        self._checkpoints.create_index([("status", ASCENDING), *NEWEST_FIRST])
        self._checkpoints.create_index([("type", ASCENDING), *NEWEST_FIRST])
        self._checkpoints.create_index("files.name")
        self._checkpoints.create_index("trash.since", sparse=True)
        self._checkpoints.create_index(
            [("request_key.caller", ASCENDING), ("request_key.key", ASCENDING)],
            unique=True,
            partialFilterExpression={"request_key.key": {"$exists": True}},
        )
        self._names.create_index("checkpoint_id")

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

    def _claim(self, checkpoint_id: str, names: Iterable[str], session: ClientSession) -> None:
        claims = {claim_of(name): name for name in names}
        try:
            self._names.insert_many(
                [{"_id": claim, "checkpoint_id": checkpoint_id} for claim in claims], session=session
            )
        except BulkWriteError as error:
            first = error.details["writeErrors"][0]
            if first["code"] != 11000:
                raise
            raise NameTaken(claims[first["op"]["_id"]]) from None

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
        return self._all({"status": DELETING, **_unleased(now())})

    def find_request(self, caller: str, key: str, since: datetime) -> Checkpoint | None:
        """The checkpoint that the caller created under this key; a key older than `since` is freed."""
        asked = {"request_key.caller": caller, "request_key.key": key}
        self._checkpoints.update_one(asked | {"created": {"$lt": since}}, {"$unset": {"request_key": True}})
        return _read(self._checkpoints.find_one(asked))

    # Imports

    def keep_imported_file(self, checkpoint_id: str, token: str, index: int, file: File) -> bool:
        """Keep what is known of a file, claim its name; False when the lease was lost. Raises NameTaken."""

        def keep(session: ClientSession) -> bool:
            holder = self._names.find_one({"_id": claim_of(file.name)}, session=session)
            if holder is not None and holder != {
                "_id": claim_of(file.name),
                "checkpoint_id": checkpoint_id,
                "index": index,
            }:
                raise NameTaken(file.name)
            if holder is None:
                claim = {"_id": claim_of(file.name), "checkpoint_id": checkpoint_id, "index": index}
                self._names.insert_one(claim, session=session)
            changes = {f"files.{index}": asdict(file), "touched": now()}
            return self._change(_leased(checkpoint_id, token), changes, session) is not None

        with self._client.start_session() as session:
            try:
                return session.with_transaction(keep)
            except DuplicateKeyError:
                raise NameTaken(file.name) from None

    def note_progress(self, checkpoint_id: str, token: str, progress: Mapping[str, Any]) -> bool:
        """Keep how far an import is; False when the lease was lost or the checkpoint deleted."""
        changes = {"progress": dict(progress), "touched": now()}
        return (
            self._checkpoints.update_one(_leased(checkpoint_id, token), {"$set": changes}).matched_count == 1
        )

    def fail(self, checkpoint_id: str, token: str, error: str) -> bool:
        """The import has failed for good: its names are free; False when the lease was lost."""

        def mark(session: ClientSession) -> bool:
            changes = {"stage": FAILED, "error": error, "touched": now()}
            failed = self._change(_leased(checkpoint_id, token), changes, session)
            if failed is not None:
                self._names.delete_many({"checkpoint_id": checkpoint_id}, session=session)
            return failed is not None

        with self._client.start_session() as session:
            return session.with_transaction(mark)

    # Moves: the new name is claimed with the plan, the old one freed with the outcome.

    def plan_move(self, checkpoint: Checkpoint, name: str, kind: str) -> Checkpoint | None:
        """Plan another name and type; None unless it is Active and no move is planned. Raises NameTaken."""

        def plan(session: ClientSession) -> Checkpoint | None:
            free = {"_id": checkpoint.id, "status": ACTIVE, "move": None}
            planned = self._change(free, {"move": {"name": name, "type": kind}}, session)
            if planned is not None and claim_of(name) not in {claim_of(old) for old in planned.names}:
                self._claim(checkpoint.id, [name], session)
            return planned

        with self._client.start_session() as session:
            return session.with_transaction(plan)

    def finish_move(self, old: Checkpoint, token: str, files: list[File]) -> Checkpoint | None:
        """The moved files are the checkpoint's files; None when the lease was lost or it was deleted."""
        freed = [claim_of(name) for name in old.names]
        kept = [claim_of(file.name) for file in files]
        trash = [
            {"key": key, "since": now()}
            for key in {one.key for one in old.files} - {one.key for one in files}
        ]
        changes = {"move": None, "type": (old.move or {})["type"], "files": _documents(files)}

        def finish(session: ClientSession) -> Checkpoint | None:
            held = {"_id": old.id, "lease.token": token, "status": {"$in": [ACTIVE, DISABLED]}}
            moved = self._change(held, changes, session, push={"trash": {"$each": trash}})
            if moved is not None:
                self._names.delete_many(
                    {"_id": {"$in": freed, "$nin": kept}, "checkpoint_id": old.id}, session=session
                )
            return moved

        with self._client.start_session() as session:
            return session.with_transaction(finish)

    def with_trash(self, before: datetime) -> list[Checkpoint]:
        """Checkpoints with objects that were moved away before then."""
        return self._all({**LIVE, "trash.since": {"$lt": before}})

    def forget_trash(self, checkpoint_id: str, key: str) -> None:
        """The object that was moved away is deleted."""
        self._checkpoints.update_one({"_id": checkpoint_id}, {"$pull": {"trash": {"key": key}}})

    # Reading

    def get(self, checkpoint_id: str) -> Checkpoint | None:
        """A checkpoint, whoever asks; also one that is being deleted."""
        return _read(self._checkpoints.find_one({"_id": checkpoint_id}))

    def find_visible(self, checkpoint_id: str, viewer: Viewer) -> Checkpoint | None:
        """A live checkpoint that the viewer may see."""
        return _read(self._checkpoints.find_one({"_id": checkpoint_id, **LIVE, **visible_to(viewer)}))

    def list_page(
        self, viewer: Viewer, filters: Mapping[str, Any], limit: int, key: str | None, skip: int = 0
    ) -> list[Checkpoint]:
        """Up to `limit` + 1 checkpoints that the viewer may see, newest first."""
        query = {"$and": [_chosen(viewer, filters), after(key, "created")]}
        return self._all(query, skip=skip, limit=limit + 1)

    def count(self, viewer: Viewer, filters: Mapping[str, Any]) -> int:
        """How many checkpoints the viewer may see."""
        return self._checkpoints.count_documents(_chosen(viewer, filters))

    def find_usable(self, viewer: Viewer, models: Mapping[str, Iterable[str]]) -> list[Checkpoint]:
        """The Active checkpoints with files of these types and names that the viewer may use."""
        asked = [{"type": kind, "files.name": {"$in": list(names)}} for kind, names in models.items()]
        if not asked:
            return []
        return self._all({"$and": [{"status": ACTIVE}, {"$or": asked}, visible_to(viewer)]})

    def stalled(self, before: datetime) -> list[Checkpoint]:
        """Uploads that nobody touched since `before`."""
        return self._all(
            {
                "status": INITIAL,
                "stage": {"$in": [UPLOADING, FAILED]},
                "touched": {"$lt": before},
                **_unleased(now()),
            }
        )

    def planned_moves(self) -> list[str]:
        """Ids of Active checkpoints with a planned move on which nobody works."""
        waiting = {"status": ACTIVE, "move": {"$ne": None}, **_unleased(now())}
        return [one["_id"] for one in self._checkpoints.find(waiting, {"_id": True})]

    def unfinished_work(self, stages: Iterable[str]) -> list[str]:
        """Ids of Initial checkpoints in these stages on which nobody works."""
        waiting = {"status": INITIAL, "stage": {"$in": list(stages)}, **_unleased(now())}
        return [one["_id"] for one in self._checkpoints.find(waiting, {"_id": True})]

    def _all(self, query: Mapping[str, Any], skip: int = 0, limit: int = 0) -> list[Checkpoint]:
        found = self._checkpoints.find(query).sort(NEWEST_FIRST).skip(skip).limit(limit)
        return [Checkpoint.from_document(one) for one in found]

    # Changes of state: each one atomic update that names the old state.

    def take_lease(self, checkpoint_id: str, status: str, token: str, seconds: float) -> Checkpoint | None:
        """Begin exclusive work on a checkpoint in that state; None when it is not or somebody works on it."""
        moment = now()
        lease = {"token": token, "until": moment + timedelta(seconds=seconds)}
        free = {"_id": checkpoint_id, "status": status, **_unleased(moment)}
        return self._change(free, {"lease": lease, "touched": moment})

    def renew_lease(self, checkpoint_id: str, token: str, seconds: float) -> None:
        """Go on with exclusive work."""
        until = now() + timedelta(seconds=seconds)
        self._checkpoints.update_one(
            {"_id": checkpoint_id, "lease.token": token}, {"$set": {"lease.until": until}}
        )

    def release_lease(self, checkpoint_id: str, token: str) -> None:
        """End exclusive work."""
        self._checkpoints.update_one(
            {"_id": checkpoint_id, "lease.token": token}, {"$unset": {"lease": True}}
        )

    def keep_files(
        self, checkpoint_id: str, token: str, files: list[File], stage: str, error: str | None
    ) -> Checkpoint | None:
        """Keep what is known of the files; None when the lease was lost or it is no longer Initial."""
        changes = {"files": _documents(files), "stage": stage, "error": error, "touched": now()}
        return self._change(_leased(checkpoint_id, token), changes)

    def activate(self, checkpoint_id: str, token: str, files: list[File]) -> Checkpoint | None:
        """Initial becomes Active; None when the lease was lost or the checkpoint is no longer Initial."""
        changes = {"status": ACTIVE, "stage": None, "error": None, "files": _documents(files)}
        return self._change(_leased(checkpoint_id, token), changes | {"touched": now()})

    def change_status(self, checkpoint_id: str, old: str, new: str) -> Checkpoint | None:
        """`old` becomes `new`; None when it is not `old`."""
        return self._change({"_id": checkpoint_id, "status": old}, {"status": new, "touched": now()})

    def edit(self, checkpoint_id: str, changes: Mapping[str, Any]) -> Checkpoint | None:
        """Set `params`, `allowed`, `creator`; None when the checkpoint is gone."""
        return self._change({"_id": checkpoint_id, **LIVE}, changes)

    def touch(self, checkpoint: Checkpoint, moment: datetime) -> None:
        """Note that the upload was alive at `moment`."""
        self._checkpoints.update_one({"_id": checkpoint.id, "status": INITIAL}, {"$max": {"touched": moment}})

    def _change(
        self,
        old: Mapping[str, Any],
        changes: Mapping[str, Any],
        session: ClientSession | None = None,
        push: Mapping[str, Any] | None = None,
    ) -> Checkpoint | None:
        update = {"$set": dict(changes)} | ({"$push": dict(push)} if push else {})
        return _read(
            self._checkpoints.find_one_and_update(
                old, update, return_document=ReturnDocument.AFTER, session=session
            )
        )


def _chosen(viewer: Viewer, filters: Mapping[str, Any]) -> dict[str, Any]:
    parts: list[dict[str, Any]] = [LIVE, visible_to(viewer)]
    if filters.get("status"):
        parts.append({"status": {"$in": filters["status"]}})
    if filters.get("types"):
        parts.append({"type": {"$in": filters["types"]}})
    if filters.get("roles"):
        parts.append({"allowed": {"$in": filters["roles"]}})
    if filters.get("username"):
        parts.append({"creator": filters["username"]})
    return {"$and": parts}


def _unleased(moment: datetime) -> dict[str, Any]:
    return {"$or": [{"lease": None}, {"lease.until": {"$lt": moment}}]}


def _leased(checkpoint_id: str, token: str) -> dict[str, Any]:
    return {"_id": checkpoint_id, "status": INITIAL, "lease.token": token}


def _documents(files: Iterable[File]) -> list[dict[str, Any]]:
    return [asdict(file) for file in files]


def _read(document: dict[str, Any] | None) -> Checkpoint | None:
    return Checkpoint.from_document(document) if document else None
