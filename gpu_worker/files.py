"""Keeps checkpoint files on disk: bounded by bytes, shared by the worker processes of a machine."""

import fcntl
import hashlib
import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests

from gpu_worker import metrics
from gpu_worker.download import boot_id, discard, download
from gpu_worker.errors import Passing, RequestFault
from gpu_worker.jobs import ModelFile

log = logging.getLogger(__name__)

FREE_SPACE_KEPT = 512 * 1024 * 1024
LOCK_POLL_SECONDS = 0.05
SHORT_HASH_LENGTH = 10


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file that is complete on disk, with the sha256 of its content."""

    path: Path
    sha256: str

    @property
    def short_hash(self) -> str:
        """The WebUI's model hash: the first ten digits of the file's sha256."""
        return self.sha256[:SHORT_HASH_LENGTH]


class FileCache:
    """An LRU of files below `folder`, at most `limit_bytes` in all.

    One entry is three files: ``KEY.safetensors``, ``KEY.json`` (its hash, and until it is flushed the boot in
    which it is good; its time of change is when the entry was last used) and ``KEY.lock``; an unfinished
    download is ``KEY.part`` and ``KEY.ranges``. Who uses an entry holds its lock shared; who downloads or
    evicts it, alone. Locks are the kernel's, so they end with their process.
    """

    def __init__(self, folder: Path, limit_bytes: int, session: requests.Session) -> None:
        self._folder = folder
        self._limit = limit_bytes
        self._session = session
        folder.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def open(self, model: ModelFile, check: Callable[[], None] = lambda: None) -> Iterator[StoredFile]:
        """Gives the model's file, downloading it when it is not here; it is not evicted inside the block.

        `check` is called while waiting and downloading and may raise to stop. Raises `Passing` or
        `RequestFault`.
        """
        key, hit = _key(model), True
        while True:
            with self._locked(key, fcntl.LOCK_SH, check):
                if stored := self._stored(key, model):
                    metrics.looked_up("disk", hit)
                    yield stored
                    return
            hit = False
            with self._locked(key, fcntl.LOCK_EX, check):
                if self._stored(key, model) is None:
                    self._fetch(key, model, check)
                    threading.Thread(target=self._flush, args=(key,), name="flush", daemon=True).start()

    def _stored(self, key: str, model: ModelFile) -> StoredFile | None:
        path, record = self._path(key, ".safetensors"), self._path(key, ".json")
        try:
            known = json.loads(record.read_text(encoding="utf-8"))
            sha256, boot = str(known["sha256"]), known.get("boot")
            if path.stat().st_size != model.size or boot not in {None, boot_id()}:
                return None
            os.utime(record)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        return StoredFile(path, sha256)

    def _record(self, key: str, known: dict[str, str], used: float | None = None) -> None:
        """Writes an entry's record; `used` is when the entry was last used, in epoch seconds, else now."""
        record = self._path(key, ".json.new")
        record.write_text(json.dumps(known), encoding="utf-8")
        if used is not None:
            os.utime(record, (used, used))
        record.replace(self._path(key, ".json"))

    def _flush(self, key: str) -> None:
        """Bring a new file safely to the disk while it is used already; then its record names no boot."""
        try:
            with self._locked(key, fcntl.LOCK_SH, lambda: None):
                known = json.loads(self._path(key, ".json").read_text(encoding="utf-8"))
                with self._path(key, ".safetensors").open("rb") as file:
                    os.fsync(file.fileno())
                known.pop("boot", None)
                self._record(key, known, self._path(key, ".json").stat().st_mtime)
        except FileNotFoundError:  # it was evicted meanwhile
            return
        except (OSError, ValueError) as error:
            log.warning("a checkpoint was not flushed", extra={"file": key, "failure": type(error).__name__})

    def _fetch(self, key: str, model: ModelFile, check: Callable[[], None]) -> None:
        if model.size > self._limit:
            raise RequestFault(
                f"checkpoint {model.name} has {model.size / 1e9:.1f} GB, this worker keeps at most "
                f"{self._limit / 1e9:.1f} GB of files"
            )
        part = self._path(key, ".part")
        started = time.monotonic()
        try:
            self._make_room(model)
            sha256 = download(self._session, model, part, check)
            part.replace(self._path(key, ".safetensors"))
            self._record(key, {"sha256": sha256, "name": model.name, "boot": boot_id()})
        except RequestFault:
            discard(part)
            raise
        except OSError as error:
            raise Passing(f"checkpoint {model.name} could not be kept on disk: {error.strerror}") from error
        metrics.DOWNLOADED.inc(model.size)
        log.info(
            "checkpoint downloaded",
            extra={
                "checkpoint": model.id,
                "bytes": model.size,
                "seconds": round(time.monotonic() - started, 3),
            },
        )

    def _make_room(self, model: ModelFile) -> None:
        """Evicts the entries unused for longest until the new file fits the limit and the disk."""
        with self._locked("cache", fcntl.LOCK_EX, lambda: None):
            entries = self._entries()
            used = sum(size for _, _, size in entries)
            for _, key, size in entries:
                if used + model.size <= self._limit and self._disk_has(model.size):
                    return
                if self._evict(key):
                    used -= size
            if not self._disk_has(model.size):
                raise Passing(
                    f"checkpoint {model.name} needs {model.size / 1e9:.1f} GB, the worker's disk is full"
                )

    def _disk_has(self, size: int) -> bool:
        return shutil.disk_usage(self._folder).free >= size + FREE_SPACE_KEPT

    def _entries(self) -> list[tuple[float, str, int]]:
        """Time of last use, key and bytes of everything kept, unfinished downloads too; the oldest first."""
        found: dict[str, tuple[float, str, int]] = {}
        for path in self._folder.iterdir():
            if path.suffix not in (".safetensors", ".part"):
                continue
            try:
                status = path.stat()
                record = self._path(path.stem, ".json")
                used = record.stat().st_mtime if record.exists() else status.st_mtime
            except OSError:
                continue
            before = found.get(path.stem, (0.0, path.stem, 0))
            found[path.stem] = (max(used, before[0]), path.stem, before[2] + status.st_size)
        return sorted(found.values())

    def _evict(self, key: str) -> bool:
        """Removes an entry unless anybody uses it."""
        with self._path(key, ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            for ending in (".json", ".safetensors"):
                self._path(key, ending).unlink(missing_ok=True)
            discard(self._path(key, ".part"))
        log.info("checkpoint evicted from disk", extra={"file": key})
        return True

    @contextmanager
    def _locked(self, key: str, mode: int, check: Callable[[], None]) -> Iterator[None]:
        """Holds a lock; waiting asks `check` between tries, so that a stopped job does not wait on."""
        with self._path(key, ".lock").open("w") as lock:
            while True:
                try:
                    fcntl.flock(lock, mode | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    check()
                    time.sleep(LOCK_POLL_SECONDS)
            yield

    def _path(self, key: str, ending: str) -> Path:
        return self._folder / f"{key}{ending}"


def _key(model: ModelFile) -> str:
    """A file name for one content; nothing from outside reaches the file system as it is.

    By its hash where the record has one, so that a renamed checkpoint is not fetched again; else by object,
    version and size.
    """
    known = model.sha256.lower() if model.sha256 else f"{model.id}\n{model.name}\n{model.etag}"
    return hashlib.sha256(f"{known}\n{model.size}".encode()).hexdigest()[:32]
