"""Imports files by URL: streamed into multipart uploads in constant memory, resumed after any death."""

import functools
import logging
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import replace
from typing import Any

from services.checkpoints.checkpoint import DELETING, IMPORTING, File
from services.checkpoints.conversion import Conversion
from services.checkpoints.deletion import Deletion
from services.checkpoints.errors import Cancelled, NameTaken, UnusableFileName
from services.checkpoints.fetching import Fetch, ImportLimits
from services.checkpoints.leases import Held, exclusive
from services.checkpoints.progress import Progress
from services.checkpoints.repository import Repository
from services.checkpoints.safetensors_header import InvalidHeader
from services.checkpoints.sandbox import NotConvertible
from services.checkpoints.sources import SourceRefused, host_of
from services.checkpoints.storage import CheckpointStorage, folder
from services.common.guard import RefusedAddress
from services.common.times import now

log = logging.getLogger(__name__)

FILES_AT_ONCE = 3

HOPELESS = (RefusedAddress, SourceRefused, UnusableFileName, NameTaken, InvalidHeader, NotConvertible)


class Imports:
    """Fetches the files of checkpoints that were created from URLs."""

    def __init__(
        self,
        repository: Repository,
        storage: CheckpointStorage,
        deletion: Deletion,
        conversion: Conversion,
        lease_seconds: float,
        limits: ImportLimits,
    ) -> None:
        self._repository = repository
        self._storage = storage
        self._deletion = deletion
        self._conversion = conversion
        self._lease_seconds = lease_seconds
        self._limits = limits

    def run(self, checkpoint_id: str, token: str | None = None) -> None:
        """Import the files and make the checkpoint Active, or say on it why not.

        `token` is sent to the hosts that the URLs name, over https, and to no other.
        Failures of S3 and MongoDB are raised: the import goes on where it was when it is run again.
        """
        with exclusive(self._repository, checkpoint_id, self._lease_seconds, wait=False) as held:
            if held is None or held.checkpoint.stage != IMPORTING:
                return
            try:
                self._activate(held, self._fetch_all(held, self._limits_with(held, token)))
            except HOPELESS as reason:
                self._give_up(held, str(reason))
            except Cancelled:
                self._clear_if_deleted(held)

    def _limits_with(self, held: Held, token: str | None) -> ImportLimits:
        if token is None:
            return self._limits
        hosts = {host_of(file.url or "") for file in held.checkpoint.files}
        return replace(self._limits, tokens=self._limits.tokens | dict.fromkeys(hosts, token))

    def _fetch_all(self, held: Held, limits: ImportLimits) -> list[File]:
        files = held.checkpoint.files
        progress = Progress(functools.partial(self._note, held), len(files))
        with ThreadPoolExecutor(min(len(files), FILES_AT_ONCE)) as pool:
            fetches = [
                pool.submit(Fetch(self._repository, self._storage, limits, held, index, progress).run)
                for index in range(len(files))
            ]
            try:
                done, _ = wait(fetches, return_when=FIRST_EXCEPTION)
                for fetch in done:
                    fetch.result()
                return [fetch.result() for fetch in fetches]
            except BaseException:
                progress.stop.set()
                pool.shutdown(cancel_futures=True)
                raise

    def _activate(self, held: Held, fetched: list[File]) -> None:
        files = [self._conversion.convert(held.checkpoint, file) for file in fetched]
        discarded = {file.key for file in fetched} - {file.key for file in files}
        active = self._repository.activate(held.checkpoint.id, held.token, files, sorted(discarded))
        if active is None:
            raise Cancelled
        self._deletion.empty_trash_of(active, now())
        self._storage.abort_uploads(f"{folder(active.type, active.id)}/")
        log.info("checkpoint was imported", extra={"checkpoint_id": active.id})

    def _note(self, held: Held, progress: dict[str, Any]) -> None:
        if not self._repository.note_progress(held.checkpoint.id, held.token, progress):
            raise Cancelled

    def _give_up(self, held: Held, reason: str) -> None:
        checkpoint = held.checkpoint
        log.info("import failed", extra={"checkpoint_id": checkpoint.id})
        self._storage.purge(folder(checkpoint.type, checkpoint.id))
        if not self._repository.fail(checkpoint.id, held.token, reason):
            self._clear_if_deleted(held)

    def _clear_if_deleted(self, held: Held) -> None:
        current = self._repository.get(held.checkpoint.id)
        if current is None or current.status == DELETING:
            self._deletion.purge(current or held.checkpoint)
