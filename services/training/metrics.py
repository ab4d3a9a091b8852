"""What the training service counts and looks up for Prometheus."""

from collections.abc import Mapping
from typing import Any

from prometheus_client import Counter

from services.common.looked_up import Gauge, LookedUp, Sample
from services.common.mongo import Documents
from services.training.states import ALIVE, FINAL, Status

LOOK_MS = 3000

ENDED = Counter("sdfleet_long_work_ended", "Trainings and merges that are over", ["kind", "status"])
STEPS = Counter("sdfleet_training_steps", "Steps of trainings and merges that are over", ["kind"])

WORK = Gauge("sdfleet_long_work", "Trainings and merges that wait or run", ("kind", "state"))
SPEED = Gauge("sdfleet_training_steps_per_second", "Steps a second of running trainings, together", ("kind",))


def ended(work: Mapping[str, Any] | None) -> None:
    """Work has changed: its end is counted."""
    if work is not None and Status(work["status"]) in FINAL:
        ENDED.labels(work["kind"], str(work["status"])).inc()
        STEPS.labels(work["kind"]).inc((work.get("progress") or {}).get("step") or 0)


def waiting_and_running(database: Documents) -> LookedUp:
    """How much long work there is now: all replicas say the same."""

    def look() -> Mapping[str, list[Sample]]:
        groups = list(database["work"].aggregate(_PER_KIND, maxTimeMS=LOOK_MS))
        running = [group for group in groups if group["_id"]["status"] == Status.RUNNING]
        return {
            WORK.name: [((group["_id"]["kind"], group["_id"]["status"]), group["count"]) for group in groups],
            SPEED.name: [((group["_id"]["kind"],), group["rate"]) for group in running],
        }

    return LookedUp((WORK, SPEED), look)


_PER_KIND: list[dict[str, Any]] = [
    {"$match": {"status": {"$in": sorted(ALIVE)}}},
    {
        "$group": {
            "_id": {"kind": "$kind", "status": "$status"},
            "count": {"$sum": 1},
            "rate": {"$sum": "$progress.rate"},
        }
    },
]
