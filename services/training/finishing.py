"""What comes after a worker: the result becomes an Active checkpoint, what is no longer needed goes."""

import logging
from typing import Any

from services.common.errors import Unavailable
from services.training.neighbours import Neighbours
from services.training.repository import Work, WorkRepository
from services.training.states import FINAL, Status
from services.training.storage import WorkStorage

log = logging.getLogger(__name__)


class Finishing:
    """Every step may be repeated after any death."""

    def __init__(self, work: WorkRepository, storage: WorkStorage, neighbours: Neighbours) -> None:
        self._work = work
        self._storage = storage
        self._neighbours = neighbours

    def finish(self, work_id: str) -> None:
        """finishing → complete or stopped, once the checkpoint is Active; failed when it cannot be."""
        work = self._work.get(work_id)
        if work is None or work["status"] != Status.FINISHING:
            return
        result: dict[str, Any] = work["result"]
        error = self._neighbours.adopt(work["checkpoint_id"], result["key"], result["facts"])
        if error:
            ended = self._work.end(work_id, Status.FAILED, error)
        else:
            ended = self._work.end(work_id, Status.STOPPED if result["stopped"] else Status.COMPLETE)
        if ended is not None:
            log.info("work ended", extra={"work_id": work_id, "status": ended["status"]})
            self.clean(ended)

    def clean(self, work: Work) -> None:
        """After the end: free the name of a checkpoint that nobody makes, delete the state; may be late."""
        if work["status"] not in FINAL or not work.get("checkpoint_id"):
            return
        try:
            if "result" not in work or work["status"] == Status.FAILED:
                reason = work.get("error") or "the training was stopped before it had learned anything"
                self._neighbours.give_up(work["checkpoint_id"], reason)
        except Unavailable:
            return  # the sweep comes again
        done = [part["key"] for part in (work.get("state"), work.get("result")) if part]
        self._storage.delete(done)
        self._work.cleaned(work["_id"])

    def forget(self, work: Work) -> None:
        """A training was deleted, in whatever state."""
        if work.get("checkpoint_id") and work["status"] not in {Status.COMPLETE, Status.STOPPED}:
            try:
                self._neighbours.give_up(work["checkpoint_id"], "the training was deleted")
            except Unavailable:  # its name stays taken until somebody deletes the checkpoint
                log.warning("a reserved checkpoint is left", extra={"work_id": work["_id"]})
        self._storage.purge(work)

    def tell_progress(self, work: Work) -> None:
        """Show on the checkpoint how far its making is; no matter when it does not get through."""
        try:
            self._neighbours.note_progress(work["checkpoint_id"], work["progress"])
        except Unavailable:
            log.warning("progress was not told", extra={"work_id": work["_id"]})

    def sweep(self) -> None:
        """What a dead process left."""
        for work in self._work.to_clean():
            self.clean(work)
