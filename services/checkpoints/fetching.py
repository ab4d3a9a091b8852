"""Fetches one file by URL into a multipart upload, in constant memory and across broken connections."""

import hashlib
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import requests
import urllib3

from services.checkpoints.checkpoint import File
from services.checkpoints.errors import Cancelled
from services.checkpoints.filenames import check_name
from services.checkpoints.inspection import inspected
from services.checkpoints.leases import Held
from services.checkpoints.progress import Progress
from services.checkpoints.repository import Repository
from services.checkpoints.sources import Opened, SourceRefused, open_source
from services.checkpoints.storage import CheckpointStorage, key_of
from services.common.guard import GuardedSession, RefusedAddress

PART_BYTES = 8 * 2**20
MOST_PARTS = 9_000
PARTS_IN_FLIGHT = 2  # of one file; with the one that is filled: 24 MiB
READ_BYTES = 2**18
TRIES = 5  # in a row without a byte

PASSING = (requests.RequestException, urllib3.exceptions.HTTPError, OSError)


@dataclass(frozen=True)
class ImportLimits:
    """What a source may do."""

    allowed_hosts: tuple[str, ...]
    tokens: dict[str, str] = field(repr=False)  # host -> bearer token
    most_bytes: int
    least_rate: float  # bytes a second
    patience: float  # seconds over which the rate is looked at
    pickles: bool  # whether they are taken, to be converted


class Fetch:
    """One file of an import."""

    def __init__(
        self,
        repository: Repository,
        storage: CheckpointStorage,
        limits: ImportLimits,
        held: Held,
        index: int,
        progress: Progress,
    ) -> None:
        self._repository = repository
        self._storage = storage
        self._limits = limits
        self._held = held
        self._index = index
        self._progress = progress
        self._file = held.checkpoint.files[index]
        self._shown = f"URL {index + 1}"
        self._session = GuardedSession(limits.allowed_hosts)
        self._etags: dict[int, str] = {}
        self._flying: dict[int, Future[str]] = {}
        self._buffer = bytearray()
        self._offset = 0  # bytes that were received
        self._digest: Any = hashlib.sha256()

    def run(self) -> File:
        """Fetch the file, check it; what is to be kept of it."""
        try:
            with ThreadPoolExecutor(PARTS_IN_FLIGHT) as uploading, self._session:
                if not self._file.complete and not self._is_whole():
                    self._resume()
                    self._receive_all(uploading)
                    self._join()
            return self._checked()
        except (RefusedAddress, SourceRefused) as reason:
            raise SourceRefused(f"{self._shown} cannot be imported: {reason}") from None

    def _is_whole(self) -> bool:
        """Whether a process died after it had put the parts together."""
        file = self._file
        if (
            not file.upload_id
            or file.size is None
            or self._storage.parts(file.key, file.upload_id) is not None
        ):
            return False
        stored = self._storage.find(file.key)
        return stored is not None and stored.size == file.size

    def _resume(self) -> None:
        file = self._file
        parts = self._storage.parts(file.key, file.upload_id) if file.upload_id and file.source_etag else None
        number, part_bytes = 1, _part_bytes(file.size)
        while parts and number in parts and parts[number][-1].size == part_bytes:
            self._etags[number] = parts[number][-1].etag
            number += 1
        self._offset = len(self._etags) * part_bytes
        self._digest = hashlib.sha256() if self._offset == 0 else None  # what was before is not read again

    def _receive_all(self, uploading: ThreadPoolExecutor) -> None:
        failures = 0
        while True:
            before = self._offset
            try:
                opened = open_source(
                    self._session,
                    self._file.url or "",
                    self._limits.tokens,
                    self._offset,
                    self._file.source_etag,
                )
                with opened.response:
                    self._accept(opened)
                    self._receive(opened, uploading)
                return
            except PASSING as error:
                failures = failures + 1 if self._offset <= before else 1
                if failures >= TRIES:
                    raise SourceRefused(
                        f"the connection broke {TRIES} times ({type(error).__name__}) "
                        f"after {self._offset} of {self._file.size or 'unknown'} bytes"
                    ) from None
                self._progress.pause(0.2 * 2**failures)

    def _accept(self, opened: Opened) -> None:
        """Begin the file, or begin it anew when the source begins anew."""
        if opened.size is not None and opened.size > self._limits.most_bytes:
            raise SourceRefused(f"it has {opened.size} bytes, at most {self._limits.most_bytes} are imported")
        if opened.start == self._offset and self._file.upload_id and self._offset:
            if self._file.size not in {None, opened.size}:
                raise SourceRefused(f"it changed from {self._file.size} to {opened.size} bytes on the way")
            return
        self._wait_for_parts(0)
        self._etags.clear()
        self._buffer.clear()
        self._offset, self._digest = 0, hashlib.sha256()
        checkpoint = self._held.checkpoint
        name = self._file.name or opened.name
        check_name(name, self._limits.pickles)
        key = key_of(checkpoint.type, checkpoint.id, name)
        if self._file.upload_id:
            self._storage.abort_upload(key, self._file.upload_id)
        strong = opened.etag if opened.etag and not opened.etag.startswith("W/") else None
        claimed = replace(self._file, name=name, key=key, size=opened.size, source_etag=strong)
        self._keep(claimed)  # the name is claimed before anything is stored under it
        self._keep(replace(claimed, upload_id=self._storage.begin_upload(key)))

    def _keep(self, file: File) -> None:
        checkpoint = self._held.checkpoint
        if not self._repository.keep_imported_file(checkpoint.id, self._held.token, self._index, file):
            raise Cancelled
        self._file = file
        self._shown = file.name

    def _receive(self, opened: Opened, uploading: ThreadPoolExecutor) -> None:
        part_bytes = _part_bytes(self._file.size)
        since, received = time.monotonic(), 0
        while piece := opened.response.raw.read1(min(READ_BYTES, part_bytes - len(self._buffer))):
            self._buffer += piece
            self._offset += len(piece)
            received += len(piece)
            if self._digest is not None:
                self._digest.update(piece)
            if self._offset > self._limits.most_bytes:
                raise SourceRefused(f"it has more than {self._limits.most_bytes} bytes")
            if len(self._buffer) == part_bytes:
                self._send_part(uploading)
            self._progress.note(self._index, self._offset, self._file.size)
            if (passed := time.monotonic() - since) > self._limits.patience:
                if received < passed * self._limits.least_rate:
                    raise SourceRefused(
                        f"it sends {received / passed:.0f} bytes a second, too slow to wait for"
                    )
                since, received = time.monotonic(), 0
        if self._file.size is not None and self._offset < self._file.size:
            raise urllib3.exceptions.ProtocolError("the answer ended early")
        if self._buffer or not (self._etags or self._flying):
            self._send_part(uploading)

    def _send_part(self, uploading: ThreadPoolExecutor) -> None:
        number = len(self._etags) + len(self._flying) + 1
        if number > 10_000:
            raise SourceRefused(f"it has more than {self._offset - 1} bytes and did not say how many")
        content, self._buffer = self._buffer, bytearray()
        file = self._file
        self._flying[number] = uploading.submit(
            self._storage.put_part, file.key, file.upload_id or "", number, content
        )
        self._wait_for_parts(PARTS_IN_FLIGHT)

    def _wait_for_parts(self, most: int) -> None:
        while len(self._flying) > most:
            number = min(self._flying)
            self._etags[number] = self._flying.pop(number).result()

    def _join(self) -> None:
        self._wait_for_parts(0)
        self._progress.note(self._index, self._offset, self._offset)
        file = replace(
            self._file, size=self._offset, sha256=self._digest.hexdigest() if self._digest else None
        )
        self._keep(file)
        self._storage.complete_upload(file.key, file.upload_id or "", self._etags)

    def _checked(self) -> File:
        file = self._file
        stored = self._storage.find(file.key)
        if stored is None:
            raise SourceRefused("S3 does not hold the object after its completion")
        return replace(inspected(self._storage, file, stored), url=None)


def _part_bytes(size: int | None) -> int:
    return max(PART_BYTES, -(-(size or 0) // MOST_PARTS))
