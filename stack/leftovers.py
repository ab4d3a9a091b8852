"""What is known about a started stack, and the processes of one whose supervisord is gone."""

import contextlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from stack.program import POLL_SECONDS
from stack.secrets import write_private
from stack.settings import Settings
from stack.supervision import MARKER

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
TERMINATE_SECONDS = 10
SAME_MOMENT = 1.0  # create times of one process, read twice, differ by less


@dataclass(frozen=True)
class Record:
    """What `up` leaves for the other commands."""

    session: int  # the pid of supervisord, which leads the session of all processes
    created: float
    boot: str
    ports: Mapping[str, int]
    workers: int
    environment: Mapping[str, str]
    run: str
    ready: bool = False
    metrics_port: int = 0

    @classmethod
    def of(cls, pid: int, settings: Settings, run: str) -> "Record":
        """The record of a supervisord that runs now."""
        created = psutil.Process(pid).create_time()
        return cls(
            pid,
            created,
            _boot(),
            settings.ports,
            settings.workers,
            settings.environment,
            run,
            metrics_port=settings.metrics_port,
        )

    @property
    def settings(self) -> Settings:
        """With which settings the stack was started."""
        return Settings(self.ports, self.workers, self.metrics_port, self.environment)

    def write(self, folder: Path) -> None:
        """Keep it in the stack's folder."""
        write_private(_path(folder), json.dumps(asdict(self)))


def read_record(folder: Path) -> Record | None:
    """The record of the stack that was started in this folder last, if it did not end in good order."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        return Record(**json.loads(_path(folder).read_text()))
    return None


def forget(folder: Path) -> None:
    """The stack has ended."""
    _path(folder).unlink(missing_ok=True)


def processes_of(folder: Path) -> list[psutil.Process]:
    """Every living process of the stack in this folder, found by session and by marker.

    nginx and Redis overwrite their environment with their title, and a lost record has no session:
    neither way alone finds all.
    """
    record = read_record(folder)
    session = record.session if record and _is_ours(record) else None
    return [process for process in psutil.process_iter() if _belongs(process, session, folder)]


def end_all(folder: Path, already_ending: float = 0) -> None:
    """Terminate what is left of a stack after so many seconds of patience, and kill what does not listen."""
    _wait_for_end(folder, already_ending)
    for process in processes_of(folder):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    _wait_for_end(folder, TERMINATE_SECONDS)
    for process in processes_of(folder):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    _wait_for_end(folder, TERMINATE_SECONDS)


def _wait_for_end(folder: Path, seconds: float) -> None:
    # not psutil.wait_procs: a process that ended stays there until its parent asks, and `up` may be that
    deadline = time.monotonic() + seconds
    while processes_of(folder) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)


def _belongs(process: psutil.Process, session: int | None, folder: Path) -> bool:
    try:
        if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
            return False
        if session is not None and os.getsid(process.pid) == session:
            return True
        return process.environ().get(MARKER) == str(folder)
    except (psutil.Error, OSError):
        return False


def _is_ours(record: Record) -> bool:
    """Whether the session's number still means the session that was recorded."""
    if record.boot != _boot():
        return False
    try:
        created = psutil.Process(record.session).create_time()
    except psutil.NoSuchProcess:
        return True  # the number stays taken while any process of the session lives
    return abs(created - record.created) < SAME_MOMENT


def _path(folder: Path) -> Path:
    return folder / "running.json"


def _boot() -> str:
    return BOOT_ID.read_text().strip() if BOOT_ID.exists() else ""
