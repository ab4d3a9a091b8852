"""Renames a checkpoint's file and changes its type by copies inside S3; the old name is valid until then."""

import logging
from collections.abc import Callable
from dataclasses import replace

from services.checkpoints.checkpoint import ACTIVE, DELETING, Checkpoint, File
from services.checkpoints.deletion import Deletion
from services.checkpoints.errors import CheckpointNotFound, WrongState
from services.checkpoints.filenames import check_name
from services.checkpoints.leases import Held, exclusive
from services.checkpoints.repository import Repository
from services.checkpoints.storage import CheckpointStorage, key_of
from services.common.errors import BadRequest

log = logging.getLogger(__name__)

AT_ONCE_BYTES = 64 * 2**20  # copied while the client waits; S3 copies some hundred MB a second


class Moves:
    """Moves objects to the key that their new name and type give them."""

    def __init__(
        self,
        repository: Repository,
        storage: CheckpointStorage,
        deletion: Deletion,
        lease_seconds: float,
        ask_to_move: Callable[[str], None],
    ) -> None:
        self._repository = repository
        self._storage = storage
        self._deletion = deletion
        self._lease_seconds = lease_seconds
        self._ask_to_move = ask_to_move

    def begin(self, checkpoint: Checkpoint, name: str | None, kind: str | None) -> Checkpoint:
        """Give an Active checkpoint another file name or type: a small one at once, else in the background.

        Raises NameTaken, WrongState, BadRequest.
        """
        name, kind = name or checkpoint.names[0], kind or checkpoint.type
        if (name, kind) == (checkpoint.names[0], checkpoint.type):
            return checkpoint
        if name != checkpoint.names[0]:
            if len(checkpoint.files) != 1:
                raise BadRequest(
                    f"checkpoint {checkpoint.id} has {len(checkpoint.files)} files: it cannot be renamed"
                )
            check_name(name)
        planned = self._repository.plan_move(checkpoint, name, kind)
        if planned is None:
            raise self._why_not(checkpoint.id)
        if sum(file.size or 0 for file in planned.files) > AT_ONCE_BYTES:
            self._ask_to_move(checkpoint.id)
            return planned
        self.run(checkpoint.id)
        return self._repository.get(checkpoint.id) or planned

    def run(self, checkpoint_id: str) -> None:
        """Make the planned move; may be repeated after any death."""
        with exclusive(self._repository, checkpoint_id, self._lease_seconds, ACTIVE, wait=False) as held:
            if held is None or held.checkpoint.move is None:
                return
            old = held.checkpoint
            files = [self._copied(old, file) for file in old.files]
            moved = self._repository.finish_move(old, held.token, files)
            if moved is None:
                self._clear_if_deleted(held)
                return
            log.info("checkpoint was moved", extra={"checkpoint_id": old.id})

    def _copied(self, checkpoint: Checkpoint, file: File) -> File:
        move = checkpoint.move or {}
        name = move["name"] if len(checkpoint.files) == 1 else file.name
        key = key_of(move["type"], checkpoint.id, name)
        self._storage.abort_uploads(key)
        self._storage.copy(file.key, key, file.size or 0)
        stored = self._storage.find(key)
        if stored is None or stored.size != file.size:
            raise WrongState(f"the copy of {file.name} is not what was copied")
        return replace(file, name=name, key=key, etag=stored.etag)

    def _clear_if_deleted(self, held: Held) -> None:
        current = self._repository.get(held.checkpoint.id)
        if current is None or current.status == DELETING:
            self._deletion.clear([current or held.checkpoint])

    def _why_not(self, checkpoint_id: str) -> Exception:
        current = self._repository.get(checkpoint_id)
        if current is None or current.status == DELETING:
            return CheckpointNotFound(checkpoint_id)
        if current.status == ACTIVE:
            return WrongState(f"checkpoint {checkpoint_id} is being renamed already, please try again later")
        return WrongState(
            f"checkpoint {checkpoint_id} is {current.status}, only an Active one can be renamed"
        )
