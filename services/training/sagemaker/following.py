"""Brings trainings to SageMaker, and follows them there; every step may be repeated after any death."""

import json
import logging
import re
from collections.abc import Callable, Mapping
from typing import Any

from services.training.finishing import Finishing
from services.training.preparation import Preparation
from services.training.repository import Work, WorkRepository, held_by
from services.training.sagemaker.jobs import Jobs, NotNow, Refused, Seen
from services.training.sagemaker.request import job_arguments, job_name, write_inputs
from services.training.sagemaker.settings import SageMakerSettings
from services.training.states import Status
from services.training.storage import WorkStorage

log = logging.getLogger(__name__)

ACTOR = "sagemaker"
ENDLESS_SECONDS = 10 * 365 * 86400  # SageMaker itself ends a job that takes too long
LATER_SECONDS = 60.0
LARGEST_RECORD = 8_000_000  # bytes
PICTURE = re.compile(r"sample-\d{1,9}-\d{1,3}\.png")
SAVE = re.compile(r"save-\d{1,9}\.safetensors")
RESULT = "result.safetensors"
PROGRESS = ("step", "steps", "loss", "rate", "remaining_seconds", "doing")


class Following:
    """The trainings whose backend is SageMaker."""

    def __init__(
        self,
        work: WorkRepository,
        storage: WorkStorage,
        preparation: Preparation,
        finishing: Finishing,
        jobs: Jobs,
        settings: SageMakerSettings,
        ask_to_finish: Callable[[str], None],
        max_attempts: int,
    ) -> None:
        self._work = work
        self._storage = storage
        self._preparation = preparation
        self._finishing = finishing
        self._jobs = jobs
        self._settings = settings
        self._ask_to_finish = ask_to_finish
        self._max_attempts = max_attempts

    def run(self) -> None:
        """Submit what waits, and look at what runs."""
        for work in self._work.for_sagemaker():
            try:
                if work["status"] == Status.QUEUED:
                    self._submit(work)
                else:
                    self._follow(work)
            except NotNow as reason:
                log.warning("SageMaker does not answer", extra={"work_id": work["_id"], "why": str(reason)})

    def _submit(self, work: Work) -> None:
        prepared = self._preparation.prepare(work, _as_key)
        if prepared is None:
            return
        claimed = self._work.claim(work["_id"], ACTOR, ENDLESS_SECONDS)
        if claimed is not None:
            self._create(claimed, prepared)

    def _create(self, work: Work, prepared: Mapping[str, Any]) -> None:
        held, name = self._held(work), job_name(work)
        # The name is kept first: whoever deletes the training then knows what may be running.
        if self._work.renew(held, ENDLESS_SECONDS, {"sagemaker_name": name}) is None:
            return
        try:
            write_inputs(self._storage, work, self._preparation.document(work, prepared, _as_key))
            self._jobs.create(job_arguments(self._settings, self._storage, work))
        except NotNow as reason:
            if self._work.release(held, ACTOR) is not None:
                self._work.postpone(work["_id"], LATER_SECONDS, str(reason))
        except Refused as reason:
            self._ended(self._work.fail(held, ACTOR, str(reason)))
        else:
            log.info("training job created", extra={"work_id": work["_id"], "attempt": work["attempt"]})

    def _follow(self, work: Work) -> None:
        try:
            seen = self._jobs.look(job_name(work))
        except Refused as reason:
            self._work.renew(self._held(work), ENDLESS_SECONDS, {"waits_for": str(reason)})
            return
        if seen is None:
            self._not_there(work)
            return
        self._note(work, seen)
        if seen.is_running:
            if work["stop_wanted"] and seen.status != "Stopping":
                self._jobs.stop(job_name(work))
            return
        self._settle(work, seen)

    def _not_there(self, work: Work) -> None:
        """A death came before the creation, or the user's wish to stop did."""
        if work["stop_wanted"]:
            self._ended(self._work.stop_empty(self._held(work), ACTOR))
            return
        prepared = self._preparation.prepare(work, _as_key)
        if prepared is not None:
            self._create(work, prepared)

    def _note(self, work: Work, seen: Seen) -> None:
        told = self._record(work, "progress.json")
        changes: dict[str, Any] = {"waits_for": seen.waits_for if seen.is_running else None}
        if told.get("attempt") == work["attempt"]:
            changes |= self._told(work, told)
        self._work.renew(self._held(work), ENDLESS_SECONDS, changes)

    def _told(self, work: Work, told: Mapping[str, Any]) -> dict[str, Any]:
        progress = told["progress"]
        if progress.get("step"):
            waits: dict[str, Any] = {"waits_for": None}
        else:
            waits = {}
        return waits | {
            "progress": {name: progress.get(name) for name in PROGRESS},
            "losses": told["losses"],
            "unknown_parameters": told["unknown_parameters"],
            "notes": told["notes"],
            "samples": self._entries(work, told["samples"], PICTURE),
            "saves": self._entries(work, told["saves"], SAVE),
        }

    def _entries(self, work: Work, told: list[Mapping[str, Any]], names: re.Pattern[str]) -> list[Any]:
        return [
            {
                "name": one["name"],
                "key": self._storage.sagemaker_key(work, f"checkpoints/{one['name']}"),
                "step": int(one["step"]),
                "at_attempt": work["attempt"],
            }
            for one in told
            if names.fullmatch(str(one["name"]))
        ]

    def _settle(self, work: Work, seen: Seen) -> None:
        held, outcome = self._held(work), self._record(work, "outcome.json")
        if outcome.get("attempt") != work["attempt"]:
            outcome = {}
        key = self._storage.sagemaker_key(work, f"checkpoints/{RESULT}")
        if outcome.get("status") == "complete" and self._storage.objects.size_of(key) is not None:
            result = {"key": key, "stopped": bool(outcome["stopped"]), "facts": outcome["facts"]}
            if self._work.finish(held, ACTOR, result) is not None:
                self._ask_to_finish(work["_id"])
        elif work["stop_wanted"]:
            self._ended(self._work.stop_empty(held, ACTOR))
        elif outcome.get("kind") == "request":
            self._ended(self._work.fail(held, ACTOR, str(outcome["message"])))
        else:
            reason = str(outcome.get("message") or seen.failure or f"its training job is {seen.status}")
            self._ended(self._work.retry(held, ACTOR, reason, self._max_attempts))

    def _ended(self, work: Work | None) -> None:
        if work is not None:
            self._finishing.clean(work)

    def _record(self, work: Work, name: str) -> dict[str, Any]:
        """What the container wrote; nothing when it has not, or not well."""
        content = self._storage.objects.read(
            self._storage.sagemaker_key(work, f"checkpoints/{name}"), LARGEST_RECORD
        )
        try:
            found = json.loads(content or b"{}")
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    @staticmethod
    def _held(work: Work) -> dict[str, Any]:
        return held_by(work["_id"], ACTOR, work["attempt"])


def _as_key(key: str) -> str:
    """The container finds objects by their keys."""
    return key
