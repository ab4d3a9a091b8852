"""What a training needs of the world: its inputs, a place for what it makes, and whom to tell.

On a worker that is the training service and presigned URLs (`Attempt`); in a training job of SageMaker the
folders of `container.py`.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from gpu_worker.files import FileCache, StoredFile
from gpu_worker.jobs import ModelFile
from gpu_worker.training.lease import WorkLease
from gpu_worker.training.transfer import Transfer
from gpu_worker.training.work import Work, WorkClient


class Outside(Protocol):
    """Every call may raise `Dropped` or `JobFault`."""

    @property
    def stop_wanted(self) -> bool:
        """Whether the training is to end with what it has."""

    @property
    def must_save(self) -> bool:
        """Whether this process has to end: the state is to be kept now."""

    def check(self) -> None:
        """Raise `Dropped` when the work is to be dropped."""

    def note(self, **changes: Any) -> None:
        """Members of `Progress` that have changed."""

    def note_loss(self, step: int, loss: float) -> None:
        """A point of the loss curve."""

    def open(self, model: ModelFile) -> AbstractContextManager[StoredFile]:
        """A checkpoint's file on this machine's disk."""

    def fetch(self, name: str, url: str, most: int) -> bytes:
        """A small file."""

    def fetch_state(self, path: Path) -> bool:
        """Bring the last state to `path`; False when there is none."""

    def keep(self, path: Path, step: int) -> None:
        """Store a state, sample or intermediate result."""

    def complete(self, path: Path | None, stopped: bool, facts: Mapping[str, Any]) -> None:
        """Store the result, and end the work; without one it was stopped before it had learned anything."""


class Attempt:
    """One attempt on a worker, under its lease."""

    def __init__(
        self, client: WorkClient, work: Work, lease: WorkLease, transfer: Transfer, files: FileCache
    ) -> None:
        self._client = client
        self._work = work
        self._lease = lease
        self._transfer = transfer
        self._files = files
        self.note: Callable[..., None] = lease.note
        self.note_loss = lease.note_loss
        self.check = lease.check
        self.fetch = transfer.fetch

    @property
    def stop_wanted(self) -> bool:
        """Whether a user stopped the training."""
        return self._lease.stop_wanted

    @property
    def must_save(self) -> bool:
        """Whether the worker stops."""
        return self._lease.must_release

    def open(self, model: ModelFile) -> AbstractContextManager[StoredFile]:
        """From the worker's cache."""
        return self._files.open(model, self._lease.check)

    def fetch_state(self, path: Path) -> bool:
        """What an earlier attempt has kept."""
        saved = self._work.document.get("state")
        if saved:
            self._transfer.fetch_to("the saved state", saved["url"], path)
        return bool(saved)

    def keep(self, path: Path, step: int) -> None:
        """Upload the file, and say so."""
        file = self._transfer.send_file(path.name, path)
        self._lease.persist(lambda: self._client.saved(self._work, file, step))

    def complete(self, path: Path | None, stopped: bool, facts: Mapping[str, Any]) -> None:
        """Upload the result, and say so."""
        file = None if path is None else self._transfer.send_file(path.name, path)
        self._lease.tell()  # the last losses: nothing is taken once the work is complete
        self._lease.persist(lambda: self._client.complete_work(self._work, file, stopped, facts))
