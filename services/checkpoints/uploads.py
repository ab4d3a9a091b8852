"""Uploads of checkpoint files: begun, resumed, put together and checked."""

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NoReturn

from services.checkpoints.checkpoint import (
    DELETING,
    IMPORTING,
    INITIAL,
    UPLOADING,
    VERIFYING,
    Checkpoint,
    File,
)
from services.checkpoints.conversion import Conversion
from services.checkpoints.deletion import Deletion
from services.checkpoints.errors import (
    BusyCheckpoint,
    CheckpointNotFound,
    InvalidFile,
    UploadGone,
    UploadRefused,
    WrongState,
)
from services.checkpoints.filenames import is_pickle
from services.checkpoints.inspection import inspected
from services.checkpoints.leases import Held, exclusive
from services.checkpoints.repository import Repository
from services.checkpoints.safetensors_header import InvalidHeader
from services.checkpoints.sandbox import NotConvertible
from services.checkpoints.storage import CheckpointStorage, Part, folder
from services.checkpoints.tags import Tags, check_files, chosen_parts
from services.common.times import now

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Arrived:
    """How far the upload of one file is."""

    file: File
    parts: list[Part]
    missing: list[int]
    urls: list[str]
    whole: bool = False  # nothing is left to upload


class Uploads:
    """Multipart uploads straight from the client to S3; every step may be repeated after any death."""

    def __init__(
        self,
        repository: Repository,
        storage: CheckpointStorage,
        deletion: Deletion,
        conversion: Conversion,
        lease_seconds: float,
        ask_to_verify: Callable[[str], None],
    ) -> None:
        self._repository = repository
        self._storage = storage
        self._deletion = deletion
        self._conversion = conversion
        self._lease_seconds = lease_seconds
        self._ask_to_verify = ask_to_verify

    def begin(self, checkpoint_id: str) -> Checkpoint:
        """Begin the uploads of all files that have none, or whose upload S3 has forgotten."""
        with exclusive(self._repository, checkpoint_id, self._lease_seconds) as held:
            if held is None:
                return self._settled(checkpoint_id)
            if held.checkpoint.stage != UPLOADING:
                return held.checkpoint
            files = [file if self._lives(file) else self._restart(file) for file in held.checkpoint.files]
            return self._keep(held, files, held.checkpoint.error)

    def part_urls(self, file: File, numbers: Sequence[int] | None = None) -> list[str]:
        """URLs for these parts of a file, or for all."""
        if numbers is None:
            numbers = range(1, file.parts_number + 1)
        return self._storage.part_urls(file.key, file.upload_id or "", numbers)

    def arrived(self, checkpoint: Checkpoint) -> list[Arrived]:
        """What S3 holds of each file, and URLs for what is missing."""
        if checkpoint.status != INITIAL or checkpoint.stage != UPLOADING:
            whole = checkpoint.status != INITIAL
            return [Arrived(file, [], [], [], whole or file.complete) for file in checkpoint.files]
        checkpoint = self.begin(checkpoint.id)
        return [self._arrived(file) for file in checkpoint.files]

    def complete(self, checkpoint_id: str, tags: Tags) -> Checkpoint:
        """Put the parts together, check the files, and make the checkpoint Active.

        Of two calls at once one does the work and the other returns its outcome. A file with a promised
        sha256 is verified in the background first, and a pickle converted: the checkpoint is still Initial.
        """
        with exclusive(self._repository, checkpoint_id, self._lease_seconds) as held:
            if held is None or held.checkpoint.stage == VERIFYING:
                return self._settled(checkpoint_id)
            if held.checkpoint.stage != UPLOADING:
                doing = "being imported" if held.checkpoint.stage == IMPORTING else "not an upload"
                raise WrongState(f"checkpoint {checkpoint_id} is {doing}, there is nothing to complete")
            check_files(held.checkpoint, tags)
            return self._finish(held, self._put_together(held, tags))

    def verify(self, checkpoint_id: str) -> None:
        """Compare the files with the promised sha256 and convert pickles: then Active, else a new upload."""
        with exclusive(self._repository, checkpoint_id, self._lease_seconds, wait=False) as held:
            if held is None or held.checkpoint.stage != VERIFYING:
                return
            checkpoint = held.checkpoint
            faults = {file.name: fault for file in checkpoint.files if (fault := self._wrong_hash(file))}
            converted: list[File] = []
            for file in checkpoint.files if not faults else ():
                try:
                    converted.append(self._conversion.convert(checkpoint, file))
                except NotConvertible as fault:
                    faults[file.name] = str(fault)
            if not faults:
                self._activate(held, converted)
                return
            self._conversion.discard(checkpoint)
            files = [self._restart(file) if file.name in faults else file for file in checkpoint.files]
            self._keep(held, files, "; ".join(faults.values()))

    def _wrong_hash(self, file: File) -> str | None:
        found = self._sha256(file) if file.sha256 else None
        return None if found == file.sha256 else f"{file.name} has the sha256 {found}, not {file.sha256}"

    def _sha256(self, file: File) -> str:
        digest = hashlib.sha256()
        for chunk in self._storage.stream(file.key, file.etag or ""):
            digest.update(chunk)
        return digest.hexdigest()

    def _put_together(self, held: Held, tags: Tags) -> list[File]:
        ready: dict[str, list[Part]] = {}
        for file in held.checkpoint.files:
            if not file.complete and (parts := self._parts_to_join(held, file, tags)) is not None:
                ready[file.name] = parts
        # The sizes are kept first: after a death they tell a repeat that the object is the one asked for.
        files = [
            replace(file, size=sum(part.size for part in ready[file.name])) if file.name in ready else file
            for file in held.checkpoint.files
        ]
        self._keep(held, files, held.checkpoint.error)
        for file in files:
            if file.name in ready:
                etags = {part.number: part.etag for part in ready[file.name]}
                self._storage.complete_upload(file.key, file.upload_id or "", etags)
        return files

    def _parts_to_join(self, held: Held, file: File, tags: Tags) -> list[Part] | None:
        """The checked parts; None when an earlier call has already put them together."""
        arrived = self._storage.parts(file.key, file.upload_id) if file.upload_id else None
        if arrived is not None:
            return chosen_parts(file, tags[file.name], arrived)
        stored = self._storage.find(file.key)
        if stored is not None and stored.size == file.size:
            return None
        files = [self._restart(other) if other == file else other for other in held.checkpoint.files]
        self._keep(held, files, None)
        raise UploadGone(held.checkpoint.id, file.name)

    def _finish(self, held: Held, files: list[File]) -> Checkpoint:
        faults: dict[str, str] = {}
        checked: list[File] = []
        for file in files:
            try:
                checked.append(file if file.complete else self._inspected(file))
            except InvalidHeader as fault:
                faults[file.name] = str(fault)
                checked.append(self._restart(file))
        if faults:
            sentence = "; ".join(faults.values())
            self._keep(held, checked, sentence)
            raise InvalidFile(sentence, errors={name: [fault] for name, fault in faults.items()})
        if any(file.sha256 or is_pickle(file.name) for file in checked):
            waiting = self._keep(held, checked, None, stage=VERIFYING)
            self._ask_to_verify(waiting.id)
            return waiting
        return self._activate(held, checked)

    def _inspected(self, file: File) -> File:
        stored = self._storage.find(file.key)
        if stored is None:
            raise UploadRefused(file.name, "the object is not there after its completion")
        return inspected(self._storage, file, stored)

    def _activate(self, held: Held, files: list[File]) -> Checkpoint:
        discarded = {file.key for file in held.checkpoint.files} - {file.key for file in files}
        active = self._repository.activate(held.checkpoint.id, held.token, files, sorted(discarded))
        if active is None:
            self._lost(held)
        self._deletion.empty_trash_of(active, now())
        self._storage.abort_uploads(f"{folder(active.type, active.id)}/")
        log.info("checkpoint is active", extra={"checkpoint_id": active.id})
        return active

    def _lives(self, file: File) -> bool:
        if file.complete:
            return True
        if file.upload_id is None:
            return False
        if self._storage.parts(file.key, file.upload_id) is not None:
            return True
        stored = self._storage.find(file.key)
        return stored is not None and stored.size == file.size

    def _restart(self, file: File) -> File:
        self._storage.delete_object(file.key)
        if file.upload_id:
            self._storage.abort_upload(file.key, file.upload_id)
        return replace(file, upload_id=self._storage.begin_upload(file.key), size=None, etag=None, found=None)

    def _arrived(self, file: File) -> Arrived:
        parts = (
            self._storage.parts(file.key, file.upload_id) if file.upload_id and not file.complete else None
        )
        if parts is None:  # put together already
            return Arrived(file, [], [], [], whole=True)
        missing = [number for number in range(1, file.parts_number + 1) if number not in parts]
        return Arrived(
            file, [parts[number][-1] for number in sorted(parts)], missing, self.part_urls(file, missing)
        )

    def _keep(self, held: Held, files: list[File], error: str | None, stage: str = UPLOADING) -> Checkpoint:
        kept = self._repository.keep_files(held.checkpoint.id, held.token, files, stage, error)
        if kept is None:
            self._lost(held)
        return kept

    def _settled(self, checkpoint_id: str) -> Checkpoint:
        checkpoint = self._repository.get(checkpoint_id)
        if checkpoint is None or checkpoint.status == DELETING:
            raise CheckpointNotFound(checkpoint_id)
        return checkpoint

    def _lost(self, held: Held) -> NoReturn:
        """The checkpoint was deleted during the work, or the lease ran out while this process stood still."""
        current = self._repository.get(held.checkpoint.id)
        if current is not None and current.status != DELETING:
            raise BusyCheckpoint(held.checkpoint.id)
        self._deletion.purge(current or held.checkpoint)
        raise CheckpointNotFound(held.checkpoint.id)
