"""What GPU workers do with long work: claim, report, save, complete, fail, give back."""

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from services.common.errors import BadRequest
from services.common.metrics import LEASES_EXPIRED
from services.training.errors import AttemptOver
from services.training.finishing import Finishing
from services.training.preparation import Preparation
from services.training.repository import TRAINING, Work, WorkRepository, held_by
from services.training.storage import WorkStorage

log = logging.getLogger(__name__)

LONGEST_REASON = 1000
FILE_NAME = re.compile(r"(result|state-\d{1,9}|save-\d{1,9}|sample-\d{1,9}-\d{1,3})\.(safetensors|state|png)")


class Running:
    """The life of work between claim and end; every change names the attempt that makes it."""

    def __init__(
        self,
        work: WorkRepository,
        storage: WorkStorage,
        preparation: Preparation,
        finishing: Finishing,
        ask_to_finish: Callable[[str], None],
        lease_seconds: int,
        max_attempts: int,
    ) -> None:
        self._work = work
        self._storage = storage
        self._preparation = preparation
        self._finishing = finishing
        self._ask_to_finish = ask_to_finish
        self._lease_seconds = lease_seconds
        self._max_attempts = max_attempts

    def claim(self, worker_id: str, instance_type: str) -> dict[str, Any] | None:
        """The oldest work that this worker can do, with everything that it needs."""
        self.requeue_expired()
        for waiting in self._work.waiting(instance_type):
            prepared = self._preparation.prepare(waiting, self._storage.read_url)
            if prepared is None:
                continue
            claimed = self._work.claim(waiting["_id"], worker_id, self._lease_seconds)
            if claimed is not None:
                log.info("work claimed", extra={"work_id": claimed["_id"], "attempt": claimed["attempt"]})
                return self._preparation.document(claimed, prepared, self._storage.read_url)
        return None

    def report(self, work_id: str, worker_id: str, attempt: int, report: Mapping[str, Any]) -> bool:
        """Renew the lease and keep the progress; whether the work is to stop. Raises AttemptOver."""
        names = ("step", "steps", "loss", "rate", "remaining_seconds", "doing")
        changes: dict[str, Any] = {"progress": {name: report[name] for name in names}}
        for name in ("unknown_parameters", "notes"):
            if report[name] is not None:
                changes[name] = report[name]
        held = held_by(work_id, worker_id, attempt)
        work = self._work.renew(held, self._lease_seconds, changes, report["losses"])
        if work is None:
            raise AttemptOver
        if work["kind"] != TRAINING and not self._finishing.tell_progress(work):
            self._work.fail(held, worker_id, "the checkpoint was deleted")
            raise AttemptOver
        return bool(work["stop_wanted"])

    def upload_urls(
        self, work_id: str, worker_id: str, attempt: int, files: Mapping[str, int]
    ) -> dict[str, dict[str, Any]]:
        """A multipart upload for each file, so many parts each. Raises AttemptOver."""
        for name in files:
            if not FILE_NAME.fullmatch(name):
                raise BadRequest(f"{name[:60]} is no name of a file that work makes")
        work = self._held(work_id, worker_id, attempt)
        urls = {}
        for name, parts in files.items():
            upload_id, parts_urls = self._storage.begin_upload(self._storage.key(work, name), parts)
            urls[name] = {"upload_id": upload_id, "urls": parts_urls}
        return urls

    def saved(self, work_id: str, worker_id: str, attempt: int, file: Mapping[str, Any], step: int) -> None:
        """A state, a sample or an intermediate result is uploaded. Raises AttemptOver."""
        work = self._held(work_id, worker_id, attempt)
        key = self._complete_upload(work, file)
        kind = str(file["name"]).partition("-")[0]
        entry = {"name": file["name"], "key": key, "step": step, "at_attempt": attempt}
        held = held_by(work_id, worker_id, attempt)
        if kind == "state":
            renewed = self._work.renew(held, self._lease_seconds, {"state": entry})
            if renewed is not None and work["state"]:
                self._storage.delete([work["state"]["key"]])
        else:
            listed = "samples" if kind == "sample" else "saves"
            renewed = self._work.renew(held, self._lease_seconds, added={listed: entry})
        if renewed is None:
            raise AttemptOver

    def complete(
        self,
        work_id: str,
        worker_id: str,
        attempt: int,
        file: Mapping[str, Any] | None,
        stopped: bool,
        facts: Mapping[str, Any],
    ) -> None:
        """running → finishing with the uploaded result, or → stopped without one. Raises AttemptOver."""
        work, held = self._held(work_id, worker_id, attempt), held_by(work_id, worker_id, attempt)
        if file is None:
            ended = self._work.stop_empty(held, worker_id)
            if ended is not None:
                self._finishing.clean(ended)
        else:
            result = {"key": self._complete_upload(work, file), "stopped": stopped, "facts": dict(facts)}
            ended = self._work.finish(held, worker_id, result)
        if ended is None:
            raise AttemptOver
        if file is not None:
            self._ask_to_finish(work_id)

    def fail(self, work_id: str, worker_id: str, attempt: int, kind: str, message: str) -> None:
        """The request's fault fails the work, any other gives it another attempt. Raises AttemptOver."""
        reason = message if len(message) <= LONGEST_REASON else message[: LONGEST_REASON - 3] + "..."
        held = held_by(work_id, worker_id, attempt)
        if kind == "request":
            work = self._work.fail(held, worker_id, reason)
        else:
            work = self._work.retry(held, worker_id, reason, self._max_attempts)
        if work is None:
            raise AttemptOver
        self._finishing.clean(work)

    def release(self, work_id: str, worker_id: str, attempt: int) -> None:
        """running → queued by a worker that stops. Raises AttemptOver."""
        if self._work.release(held_by(work_id, worker_id, attempt), worker_id) is None:
            raise AttemptOver

    def requeue_expired(self) -> int:
        """Take work from workers that went silent; how much."""
        changed = 0
        for work in self._work.expired():
            # The lease is named again: one that was renewed meanwhile stays.
            expected = held_by(work["_id"], work["lease"]["worker"], work["attempt"])
            expected["lease.expires_at"] = work["lease"]["expires_at"]
            reason = f"worker {work['lease']['worker']} went silent"
            given_on = self._work.retry(expected, "training", reason, self._max_attempts)
            if given_on is not None:
                changed += 1
                LEASES_EXPIRED.labels(work["kind"]).inc()
                self._finishing.clean(given_on)
        return changed

    def _held(self, work_id: str, worker_id: str, attempt: int) -> Work:
        work = self._work.renew(held_by(work_id, worker_id, attempt), self._lease_seconds)
        if work is None:
            raise AttemptOver
        return work

    def _complete_upload(self, work: Work, file: Mapping[str, Any]) -> str:
        if not FILE_NAME.fullmatch(file["name"]):
            raise BadRequest(f"{file['name'][:60]} is no name of a file that work makes")
        key = self._storage.key(work, file["name"])
        etags: Sequence[str] = file["etags"]
        self._storage.complete_upload(key, file["upload_id"], etags)
        return key
