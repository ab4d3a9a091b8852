"""Downloads one file by a presigned URL: in parallel ranges, hashed on the way, resumed after a break."""

import hashlib
import json
import logging
import os
import queue
import re
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import requests

from gpu_worker.errors import Passing, RequestFault
from gpu_worker.jobs import ModelFile

log = logging.getLogger(__name__)

CONNECTIONS = min(8, 2 * (os.cpu_count() or 4))  # more only take turns at a small machine's cores
RANGE_BYTES = 16 * 1024 * 1024
CHUNK_BYTES = 1024 * 1024
TIMEOUT = (5.0, 30.0)
ATTEMPTS_WITHOUT_PROGRESS = 4
PAUSE_SECONDS = 0.5
CHECK_SECONDS = 0.1
CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+)")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class _Broken(Exception):
    """The connection ended early; the rest may be asked for."""


class _NoRanges(Exception):
    """The server does not answer with the ranges that it was asked for."""


def download(
    session: requests.Session, model: ModelFile, part: Path, check: Callable[[], None] = lambda: None
) -> str:
    """Fetches the model's content into `part` (which may hold ranges of it) and returns its sha256 in hex.

    It is not flushed to the disk. `check` is called by the calling thread all the while and may raise to
    stop. Raises `Passing` when the storage does not deliver and `RequestFault` when what it delivers is not
    what the checkpoint's record says.
    """
    try:
        sha256 = _Download(session, model, part, RANGE_BYTES).run(check)
    except _NoRanges:
        log.warning("the storage serves no ranges", extra={"checkpoint": model.id})
        sha256 = _Download(session, model, part, model.size).run(check)
    if model.sha256 and model.sha256.lower() != sha256:
        discard(part)
        raise Passing(f"checkpoint {model.name} arrived damaged: its sha256 is not that of its record")
    _notes_of(part).unlink(missing_ok=True)
    return sha256


def discard(part: Path) -> None:
    """Removes an unfinished download; the notes first, as they must never outlive what they speak of."""
    _notes_of(part).unlink(missing_ok=True)
    part.unlink(missing_ok=True)


def boot_id() -> str:
    """Names the machine's current boot: what was not flushed in an earlier one may have been lost."""
    return BOOT_ID.read_text().strip() if BOOT_ID.exists() else ""


def _notes_of(part: Path) -> Path:
    return part.with_suffix(".ranges")


class _Notes:
    """Which ranges of a part are complete, on disk beside it, for the process that resumes a killed one's.

    A part has holes, so nothing of it counts unless it is noted here: a line per range, after a line that
    says of what. Nothing is flushed before the end: notes of the machine's earlier boot are worth nothing.
    """

    def __init__(self, model: ModelFile, part: Path, range_bytes: int) -> None:
        key = {"size": model.size, "etag": model.etag, "range": range_bytes, "boot": boot_id()}
        self._header = json.dumps(key)
        self._path = _notes_of(part)
        # Without an ETag nobody can tell whether the object is still the one that the ranges came from.
        self.complete = self._read(part) if model.etag else set()
        if not self.complete:
            discard(part)
            self._path.write_text(self._header + "\n")
            part.touch()

    def _read(self, part: Path) -> set[int]:
        if not part.exists() or not self._path.exists():
            return set()
        header, *lines = self._path.read_text(errors="replace").split("\n")
        # What follows the last line break is a line that was not written to its end.
        return {int(line) for line in lines[:-1] if line.isdecimal()} if header == self._header else set()

    def add(self, index: int) -> None:
        """To be called once the range's bytes are written."""
        with self._path.open("a") as file:
            file.write(f"{index}\n")
        self.complete.add(index)


class _Download:
    """One file's download; threads fetch ranges, the calling thread notes and hashes those that are complete.

    A file of one range is fetched by a plain GET. The threads are not waited for when the download fails, as
    a silent server may hold one for long: each opens the part itself and writes nothing after `_stop`.
    """

    def __init__(self, session: requests.Session, model: ModelFile, part: Path, range_bytes: int) -> None:
        self._session = session
        self._model = model
        self._part = part
        self._range = max(range_bytes, 1)
        self._whole = model.size <= self._range
        self._notes = _Notes(model, part, range_bytes)
        # The bytes that each range has; an item is written only by the one thread that fetches the range.
        self._have = [0] * -(-model.size // self._range)
        self._etag = model.etag
        self._stop = threading.Event()

    def run(self, check: Callable[[], None]) -> str:
        """Fetches what is missing and returns the sha256 of it all."""
        missing = [index for index in range(len(self._have)) if index not in self._notes.complete]
        done: queue.SimpleQueue[Future[int]] = queue.SimpleQueue()
        pool = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="download")
        try:
            for index in missing:
                pool.submit(self._fetch, index).add_done_callback(done.put)
            with self._part.open("r+b", buffering=0) as file:
                return self._hash(file.fileno(), done, check)
        finally:
            self._stop.set()
            pool.shutdown(wait=False, cancel_futures=True)

    def _hash(self, file: int, done: "queue.SimpleQueue[Future[int]]", check: Callable[[], None]) -> str:
        digest = hashlib.sha256()
        for index in range(len(self._have)):
            check()
            while index not in self._notes.complete:
                try:
                    self._notes.add(done.get(timeout=CHECK_SECONDS).result())
                except queue.Empty:
                    check()
            at, end = self._bounds(index)
            while at < end:
                chunk = os.pread(file, min(CHUNK_BYTES, end - at), at)
                if not chunk:
                    discard(self._part)
                    raise Passing(
                        f"checkpoint {self._model.name} could not be kept on disk: it was cut short"
                    )
                digest.update(chunk)
                at += len(chunk)
        return digest.hexdigest()

    def _bounds(self, index: int) -> tuple[int, int]:
        return index * self._range, min((index + 1) * self._range, self._model.size)

    def _fetch(self, index: int) -> int:
        """Fetches a range, again from where it broke, until no range at all gets any further."""
        start, end = self._bounds(index)
        failures, most = 0, 0
        while self._have[index] < end - start and not self._stop.is_set():
            most = max(most, sum(self._have))
            try:
                self._fetch_rest(index)
            except (_Broken, requests.RequestException) as error:
                if self._stop.is_set():
                    break
                failures = failures + 1 if sum(self._have) <= most else 0
                if failures >= ATTEMPTS_WITHOUT_PROGRESS:
                    raise Passing(
                        f"checkpoint {self._model.name} could not be downloaded: the storage does not answer"
                    ) from error
                extra = {"checkpoint": self._model.id, "bytes": sum(self._have)}
                log.warning("download interrupted", extra=extra)
                self._stop.wait(PAUSE_SECONDS * failures)
        return index

    def _fetch_rest(self, index: int) -> None:
        start, end = self._bounds(index)
        at = start + self._have[index]
        headers = {"Accept-Encoding": "identity"}
        if at or not self._whole:
            headers["Range"] = f"bytes={at}-" + ("" if self._whole else str(end - 1))
        with self._session.get(self._model.url, headers=headers, stream=True, timeout=TIMEOUT) as response:
            if response.status_code == 200 and self._whole:
                at = self._have[index] = 0
            self._check_response(response, at, end)
            with self._part.open("r+b", buffering=0) as file:
                for chunk in response.iter_content(CHUNK_BYTES):
                    if self._stop.is_set():
                        return
                    self._check_room(len(chunk), end - at)
                    _write(file.fileno(), chunk, at)
                    at += len(chunk)
                    self._have[index] = at - start
        if at < end:
            raise _Broken

    def _check_room(self, more: int, room: int) -> None:
        if more <= room:
            return
        if not self._whole:
            raise _NoRanges
        raise RequestFault(
            f"checkpoint {self._model.name} has more bytes in storage than the {self._model.size} of its "
            "record"
        )

    def _check_response(self, response: requests.Response, at: int, end: int) -> None:
        name, status = self._model.name, response.status_code
        if status == 404:
            raise RequestFault(f"checkpoint {name} is not in storage any more")
        if status == 403:
            raise Passing(f"checkpoint {name} could not be downloaded: its URL is no longer valid")
        if status not in (200, 206, 416):
            raise _Broken
        etag = response.headers.get("ETag", "").strip('"')
        # A record without an ETag still wants all its ranges from one object: the first answer's counts.
        self._etag = self._etag or etag
        if etag and etag != self._etag:
            raise RequestFault(
                f"checkpoint {name} was replaced in storage: its ETag is not that of its record"
            )
        size = _size_in_storage(response, at)
        if size is not None and size != self._model.size:
            raise RequestFault(
                f"checkpoint {name} has {size} bytes in storage, its record says {self._model.size}"
            )
        if status == 416:
            raise _Broken
        if not self._whole and (status == 200 or not _begins_at(response, at)):
            raise _NoRanges


def _size_in_storage(response: requests.Response, at: int) -> int | None:
    """The object's size as far as an answer to a request for its bytes from `at` on tells it."""
    if said := CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "")):
        return int(said[2])
    length = response.headers.get("Content-Length", "")
    if not length.isdigit():
        return None
    if response.status_code == 200:
        return int(length)
    # Without Content-Range only a part that goes up to the object's end tells its size.
    to_the_end = response.status_code == 206 and response.request.headers.get("Range", "").endswith("-")
    return at + int(length) if to_the_end else None


def _begins_at(response: requests.Response, at: int) -> bool:
    said = CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    return said is not None and said[1] == str(at)


def _write(file: int, data: bytes, at: int) -> None:
    """All of it: the system may write less than it was given."""
    view = memoryview(data)
    while view:
        written = os.pwrite(file, view, at)
        view, at = view[written:], at + written
