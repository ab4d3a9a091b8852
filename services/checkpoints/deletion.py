"""Deletes checkpoints: out of sight at once, then their objects and uploads, then the record."""

import logging
from collections.abc import Iterable, Sequence
from datetime import datetime

from botocore.exceptions import BotoCoreError, ClientError

from services.checkpoints.checkpoint import Checkpoint, Viewer
from services.checkpoints.neighbours import Neighbours
from services.checkpoints.repository import Repository
from services.checkpoints.storage import CheckpointStorage, folder
from services.common.errors import Unavailable
from services.common.times import now

log = logging.getLogger(__name__)


class Deletion:
    """Deletes what users delete and what nobody finishes; what a job needs goes when the job has ended."""

    def __init__(self, repository: Repository, storage: CheckpointStorage, neighbours: Neighbours) -> None:
        self._repository = repository
        self._storage = storage
        self._neighbours = neighbours

    def delete(self, ids: Iterable[str], viewer: Viewer) -> None:
        """Delete the viewer's own checkpoints among `ids`; the others and absent ones are ignored.

        What jobs need, what S3 does not let go now, and what another process is working on, goes later.
        """
        marked = self._repository.mark_deleted(ids, viewer)
        for checkpoint in marked:
            log.info("checkpoint deleted", extra={"checkpoint_id": checkpoint.id})
        self.clear([one for one in marked if one.lease is None or one.lease["until"] < now()])

    def clear(self, deleted: Sequence[Checkpoint]) -> int:
        """Purge those of the deleted checkpoints that nothing needs any more; how many.

        What has just been promised to a job stays: the job may be about to be kept, and is not asked for yet.
        """
        moment = now()
        free = [one for one in deleted if one.promised_until is None or one.promised_until < moment]
        needed = self._needed([checkpoint.id for checkpoint in free if checkpoint.may_be_in_use])
        return sum(self._try_to_purge(checkpoint) for checkpoint in free if checkpoint.id not in needed)

    def clear_leftovers(self) -> int:
        """Purge what earlier deletions left and nobody needs or works on any more; how many."""
        return self.clear(self._repository.leftovers())

    def _needed(self, ids: list[str]) -> set[str]:
        try:
            return self._neighbours.in_use(ids)
        except Unavailable:  # nobody can say: they stay until somebody can
            return set(ids)

    def purge(self, checkpoint: Checkpoint) -> None:
        """Remove the objects, unfinished uploads and the record of a checkpoint that is out of sight."""
        folders = {file.key.rpartition("/")[0] for file in checkpoint.files if file.key}
        folders.add(folder(checkpoint.type, checkpoint.id))
        folders |= {entry["key"].rpartition("/")[0] for entry in checkpoint.trash}
        if checkpoint.move:
            folders.add(folder(checkpoint.move["type"], checkpoint.id))
        self._storage.purge(*sorted(folders))
        self._repository.remove(checkpoint.id)

    def sweep(self, stalled_before: datetime) -> int:
        """Delete uploads without a sign of life since then; how many."""
        swept = 0
        for checkpoint in self._repository.stalled(stalled_before):
            last = self._last_sign_of_life(checkpoint)
            if last >= stalled_before:
                self._repository.touch(checkpoint, last)
            elif self._repository.mark_stalled(checkpoint):
                log.info("stalled upload given up", extra={"checkpoint_id": checkpoint.id})
                swept += self._try_to_purge(checkpoint)
        return swept

    def empty_trash(self, before: datetime) -> None:
        """Delete the objects that were moved away before then: jobs that were promised them are over."""
        for checkpoint in self._repository.with_trash(before):
            self.empty_trash_of(checkpoint, before)

    def empty_trash_of(self, checkpoint: Checkpoint, before: datetime) -> None:
        """Delete this checkpoint's objects that were moved away before then."""
        kept = {file.key for file in checkpoint.files}
        for entry in checkpoint.trash:
            if entry["since"] < before:
                if entry["key"] not in kept:  # it may have been moved back
                    self._storage.delete_object(entry["key"])
                self._repository.forget_trash(checkpoint.id, entry["key"])

    def _last_sign_of_life(self, checkpoint: Checkpoint) -> datetime:
        moments = [checkpoint.touched]
        for file in checkpoint.files:
            if file.upload_id and not file.complete:
                parts = self._storage.parts(file.key, file.upload_id) or {}
                moments += [versions[-1].modified for versions in parts.values()]
        return max(moments)

    def _try_to_purge(self, checkpoint: Checkpoint) -> bool:
        try:
            self.purge(checkpoint)
        except (BotoCoreError, ClientError) as error:
            log.warning(
                "objects stay until the next sweep",
                extra={"checkpoint_id": checkpoint.id, "failure": type(error).__name__},
            )
            return False
        return True
