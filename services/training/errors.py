"""The failures of the training service, each with its status and sentence."""

from services.common.errors import BadRequest, Conflict, NotFound


class JobNotFound(NotFound):
    """No such training, or the caller may not see it."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"Job with id {job_id} not found")


class ModelNotFound(NotFound):
    """No such model, or the caller may not see it."""

    def __init__(self, model_id: str) -> None:
        super().__init__(f"model with id {model_id} not found")


class ModelNotReady(BadRequest):
    """The model cannot be trained now."""


class CheckpointNotFound(BadRequest):
    """A checkpoint that is not there, not Active or not the caller's to use."""

    def __init__(self, name: str, kind: str) -> None:
        super().__init__(f"checkpoint with name {name}, type {kind} is not found")


class Refused(BadRequest):
    """Another service refuses, in its own words."""


class UnusableData(BadRequest):
    """A data set cannot be trained on; the sentence says why."""


class NotYet(Exception):
    """Something is still being prepared; the work waits, no client sees this."""


class WrongState(Conflict):
    """The training is not in a state that allows this."""


class AttemptOver(Conflict):
    """The work has gone to another attempt, or has ended."""

    message = "this attempt is over"


class Replaced(BadRequest):
    """A checkpoint that the work needs has become another one."""

    def __init__(self, name: str) -> None:
        super().__init__(f"the checkpoint {name} was replaced by another of its name since the start")
