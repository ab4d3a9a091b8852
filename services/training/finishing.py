"""What comes after a worker: the result becomes an Active checkpoint, what is no longer needed goes."""

import logging
from typing import Any

from services.common.errors import Unavailable
from services.training.names import checkpoint_id_of
from services.training.neighbours import Neighbours
from services.training.repository import Work, WorkRepository
from services.training.sagemaker.jobs import Jobs
from services.training.states import FINAL, Status
from services.training.storage import WorkStorage

log = logging.getLogger(__name__)

HALF_CREATED_SECONDS = 600.0


class Finishing:
    """Every step may be repeated after any death."""

    def __init__(
        self, work: WorkRepository, storage: WorkStorage, neighbours: Neighbours, jobs: Jobs
    ) -> None:
        self._jobs = jobs
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
        if (job := work.get("sagemaker_name")) and not self._jobs.ended(job):
            return  # it may still write
        try:
            if "result" not in work or work["status"] == Status.FAILED:
                reason = work.get("error") or "the training was stopped before it had learned anything"
                self._neighbours.give_up(work["checkpoint_id"], reason)
        except Unavailable:
            return  # the sweep comes again
        shown = [*work["samples"], *work["saves"]]
        self._storage.tidy(work, keep={entry["key"] for entry in shown})
        self._work.cleaned(work["_id"])

    def forget(self, work: Work) -> None:
        """End a deletion: the name of a checkpoint that nobody makes any more, the objects, the record.

        What does not answer now is seen to by the sweep.
        """
        if (job := work.get("sagemaker_name")) and not self._jobs.ended(job):
            return
        try:
            self._neighbours.give_up(checkpoint_id_of(work["_id"]), "the training was deleted")
        except Unavailable:
            return
        self._storage.purge(work)
        self._work.forget(work["_id"])

    def tell_progress(self, work: Work) -> bool:
        """Show on the checkpoint how far its making is; False when the checkpoint was deleted."""
        try:
            return self._neighbours.note_progress(work["checkpoint_id"], work["progress"])
        except Unavailable:
            log.warning("progress was not told", extra={"work_id": work["_id"]})
            return True

    def sweep(self) -> None:
        """What a dead process left."""
        for work in self._work.to_clean():
            self.clean(work)
        for work in self._work.deleted():
            self.forget(work)
        for work in self._work.half_created(HALF_CREATED_SECONDS):
            try:
                self._neighbours.give_up(checkpoint_id_of(work["_id"]), "the merge could not be created")
            except Unavailable:
                continue
            self._work.give_up_creation(work["_id"])
