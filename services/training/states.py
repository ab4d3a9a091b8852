"""The states of long work: inside, and as clients see them."""

from enum import StrEnum


class Status(StrEnum):
    """Where a training or merge is."""

    CREATED = "created"
    QUEUED = "queued"
    RUNNING = "running"
    FINISHING = "finishing"  # the result is in S3, its checkpoint is not Active yet
    COMPLETE = "complete"
    STOPPED = "stopped"
    FAILED = "failed"
    DELETING = "deleting"  # no client sees it: what it keeps elsewhere is about to go


FINAL = frozenset({Status.COMPLETE, Status.STOPPED, Status.FAILED})
ENDED_WELL = frozenset({Status.COMPLETE, Status.STOPPED})
ALIVE = frozenset({Status.QUEUED, Status.RUNNING, Status.FINISHING})
SHOWN = {
    Status.CREATED: "Initial",
    Status.QUEUED: "Pending",
    Status.RUNNING: "Training",
    Status.FINISHING: "Training",
    Status.COMPLETE: "Complete",
    Status.STOPPED: "Stopped",
    Status.FAILED: "Fail",
}


def inside(shown: str) -> list[Status]:
    """The states that clients see under this name."""
    return [status for status, name in SHOWN.items() if name == shown]
