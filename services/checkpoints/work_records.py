"""What exclusive work on a checkpoint reads and writes: leases, imports, files that became whole."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

from pymongo.client_session import ClientSession
from pymongo.errors import DuplicateKeyError

from services.checkpoints.checkpoint import ACTIVE, FAILED, INITIAL, MAKING, Checkpoint, File
from services.checkpoints.errors import NameTaken
from services.checkpoints.filenames import claim_of, final_name
from services.checkpoints.records import Records, documents, leased, unleased
from services.common.times import now

LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


class WorkRecords(Records):
    """What somebody who holds a checkpoint's lease reads and writes, and who may take it."""

    def planned_moves(self) -> list[str]:
        """Ids of Active checkpoints with a planned move on which nobody works."""
        waiting = {"status": ACTIVE, "move": {"$ne": None}, **unleased(now())}
        return [one["_id"] for one in self._checkpoints.find(waiting, {"_id": True})]

    def unfinished_work(self, stages: Iterable[str]) -> list[str]:
        """Ids of Initial checkpoints in these stages on which nobody works."""
        waiting = {"status": INITIAL, "stage": {"$in": list(stages)}, **unleased(now())}
        return [one["_id"] for one in self._checkpoints.find(waiting, {"_id": True})]

    def take_lease(self, checkpoint_id: str, status: str, token: str, seconds: float) -> Checkpoint | None:
        """Begin exclusive work on a checkpoint in that state; None when it is not or somebody works on it."""
        moment = now()
        lease = {"token": token, "until": moment + timedelta(seconds=seconds)}
        free = {"_id": checkpoint_id, "status": status, **unleased(moment)}
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
        changes = {"files": documents(files), "stage": stage, "error": error, "touched": now()}
        return self._change(leased(checkpoint_id, token), changes)

    def activate(
        self, checkpoint_id: str, token: str, files: list[File], discarded: Sequence[str] = ()
    ) -> Checkpoint | None:
        """Initial becomes Active; None when the lease was lost or the checkpoint is no longer Initial.

        Objects under the `discarded` keys are no longer needed: they are trash at once.
        """
        changes = {"status": ACTIVE, "stage": None, "error": None, "files": documents(files)}
        trash = [{"key": key, "since": LONG_AGO} for key in discarded]
        return self._change(
            leased(checkpoint_id, token), changes | {"touched": now()}, push={"trash": {"$each": trash}}
        )

    # Imports: a name is claimed as soon as it is known.

    def keep_imported_file(self, checkpoint_id: str, token: str, index: int, file: File) -> bool:
        """Keep what is known of a file, claim its name; False when the lease was lost. Raises NameTaken."""

        def keep(session: ClientSession) -> bool:
            holder = self._names.find_one({"_id": claim_of(file.name)}, session=session)
            if holder is not None and holder != {
                "_id": claim_of(file.name),
                "checkpoint_id": checkpoint_id,
                "index": index,
            }:
                raise NameTaken(final_name(file.name))
            if holder is None:
                claim = {"_id": claim_of(file.name), "checkpoint_id": checkpoint_id, "index": index}
                self._names.insert_one(claim, session=session)
            changes = {f"files.{index}": asdict(file), "touched": now()}
            return self._change(leased(checkpoint_id, token), changes, session) is not None

        with self._client.start_session() as session:
            try:
                return session.with_transaction(keep)
            except DuplicateKeyError:
                raise NameTaken(final_name(file.name)) from None

    def note_progress(self, checkpoint_id: str, token: str, progress: Mapping[str, Any]) -> bool:
        """Keep how far an import is; False when the lease was lost or the checkpoint deleted."""
        changes = {"progress": dict(progress), "touched": now()}
        return (
            self._checkpoints.update_one(leased(checkpoint_id, token), {"$set": changes}).matched_count == 1
        )

    def note_making(self, checkpoint_id: str, progress: Mapping[str, Any]) -> bool:
        """Keep how far the making of a checkpoint is; False when it is no longer made."""
        made = {"_id": checkpoint_id, "status": INITIAL, "stage": MAKING}
        changes = {"progress": dict(progress), "touched": now()}
        return self._checkpoints.update_one(made, {"$set": changes}).matched_count == 1

    def fail(self, checkpoint_id: str, token: str, error: str) -> bool:
        """The import has failed for good: its names are free; False when the lease was lost."""

        def mark(session: ClientSession) -> bool:
            changes = {"stage": FAILED, "error": error, "touched": now()}
            failed = self._change(leased(checkpoint_id, token), changes, session)
            if failed is not None:
                self._names.delete_many({"checkpoint_id": checkpoint_id}, session=session)
            return failed is not None

        with self._client.start_session() as session:
            return session.with_transaction(mark)
