"""The states of a job, which of them clients see, and what jobs may do."""

from enum import StrEnum


class Status(StrEnum):
    """Where a job is in its life."""

    CREATED = "created"
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEED = "succeed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    # Hidden from everybody: its objects are being removed.
    DELETED = "deleted"

    @property
    def is_final(self) -> bool:
        """Whether the job's life is over."""
        return self in FINAL


FINAL = frozenset({Status.SUCCEED, Status.FAILED, Status.CANCELLED, Status.DELETED})
IN_PROGRESS = "inprogress"

# What a client sees -> what the job may be.
SHOWN = {
    "created": [Status.CREATED],
    IN_PROGRESS: [Status.QUEUED, Status.RUNNING],
    "succeed": [Status.SUCCEED],
    "failed": [Status.FAILED],
    "cancelled": [Status.CANCELLED],
}

TASK_TYPES = (
    "txt2img",
    "img2img",
    "extra-single-image",
    "extra-batch-images",
    "rembg",
    "interrogate_clip",
    "interrogate_deepbooru",
)


def shown(status: str) -> str:
    """The state as clients see it."""
    return IN_PROGRESS if status in (Status.QUEUED, Status.RUNNING) else str(status)
