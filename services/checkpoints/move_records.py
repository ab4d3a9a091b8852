"""Renames: the new name is claimed with the plan, the old one freed with the outcome."""

from datetime import datetime

from pymongo.client_session import ClientSession

from services.checkpoints.checkpoint import ACTIVE, DISABLED, Checkpoint, File
from services.checkpoints.filenames import claim_of
from services.checkpoints.records import LIVE, Records, documents
from services.common.times import now


class MoveRecords(Records):
    """Renames, and the objects that they leave behind."""

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
        changes = {"move": None, "type": (old.move or {})["type"], "files": documents(files)}

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
