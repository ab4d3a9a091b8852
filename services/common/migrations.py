"""Changes to documents that an earlier version has written: each is made once, by one process."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from services.common.leases import held
from services.common.mongo import Documents
from services.common.times import now

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Step:
    """One change. `run` finds what is still to be changed by itself: cut off, it is run again from there."""

    name: str
    run: Callable[[Documents], None]


def migrate(database: Documents, steps: Sequence[Step]) -> list[str]:
    """Run the steps that this database has not had, in their order; the names of those that were run.

    Any number of processes may do so at once: one works, the others wait. What a step has changed must be
    readable by the version before, whose replicas may still be running.
    """
    if not _missing(database, steps):
        return []
    with held(database, "migrations"):
        done = []
        for step in _missing(database, steps):
            began = time.monotonic()
            step.run(database)
            database["migrations"].update_one({"_id": step.name}, {"$set": {"at": now()}}, upsert=True)
            seconds = round(time.monotonic() - began, 3)
            log.info("documents are changed", extra={"step": step.name, "seconds": seconds})
            done.append(step.name)
        return done


def _missing(database: Documents, steps: Sequence[Step]) -> list[Step]:
    had = {record["_id"] for record in database["migrations"].find({}, {"_id": True})}
    return [step for step in steps if step.name not in had]
