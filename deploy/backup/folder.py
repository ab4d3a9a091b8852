"""A folder with one backup: a dump of the databases, the objects, and a manifest that makes it whole.

The manifest is replaced last, in one step: a backup that is interrupted leaves the one before it as it was.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from deploy.backup.databases import Collection
from deploy.backup.failures import BackupFailed
from deploy.backup.objects import Entry

FORMAT = 1
DUMP = "databases-"


@dataclass(frozen=True)
class Backup:
    """What a manifest lists."""

    dump: Path
    collections: list[Collection]
    objects: list[Entry]


class Folder:
    """The files of one backup."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._manifest = path / "manifest.json"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """One backup or restore at a time. Raises BackupFailed when another one is at work."""
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BackupFailed(f"another backup or restore is at work in {self.path}") from None
            yield

    def new_dump(self) -> Path:
        """An empty folder for the databases."""
        dump = self.path / f"{DUMP}{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{secrets.token_hex(2)}"
        dump.mkdir()
        return dump

    def file_of(self, key: str, etag: str) -> Path:
        """Where an object's bytes are. Keys are no safe file names; another version is another file."""
        digest = hashlib.sha256(f"{key}\n{etag}".encode()).hexdigest()
        return self.path / "objects" / digest[:2] / digest

    def known(self) -> dict[str, Entry]:
        """The objects of the last whole backup, by key: what did not change is not fetched again."""
        if not self._manifest.exists():
            return {}
        return {
            entry.key: entry for entry in self.read().objects if self.file_of(entry.key, entry.etag).is_file()
        }

    def finish(self, dump: Path, collections: list[Collection], entries: list[Entry]) -> None:
        """Make it the folder's backup, then remove what only the one before it had."""
        text = json.dumps(
            {
                "format": FORMAT,
                "made": time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime()),
                "dump": dump.name,
                "collections": [asdict(collection) for collection in collections],
                "objects": [asdict(entry) for entry in entries],
            },
            indent=1,
        )
        fresh = self._manifest.with_suffix(".new")
        with fresh.open("w") as file:
            file.write(text)
            file.flush()
            os.sync()  # everything that it lists is on disk before it says so
        fresh.replace(self._manifest)
        self._forget_others(dump, entries)

    def _forget_others(self, dump: Path, entries: list[Entry]) -> None:
        for other in self.path.glob(f"{DUMP}*"):
            if other != dump:
                shutil.rmtree(other)
        wanted = {self.file_of(entry.key, entry.etag) for entry in entries}
        for file in (self.path / "objects").glob("*/*"):
            if file not in wanted:
                file.unlink()

    def read(self) -> Backup:
        """What the folder holds. Raises BackupFailed when it is no whole backup."""
        if not self._manifest.is_file():
            raise BackupFailed(f"{self.path} holds no finished backup: it has no manifest.json")
        listed = json.loads(self._manifest.read_text())
        if listed.get("format") != FORMAT:
            raise BackupFailed(f"{self.path} was made by another version of sdfleet")
        return Backup(
            dump=self.path / listed["dump"],
            collections=[Collection(**collection) for collection in listed["collections"]],
            objects=[Entry(**entry) for entry in listed["objects"]],
        )
