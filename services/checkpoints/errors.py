"""The failures of the checkpoints service, each with its status and sentence."""

from services.common.errors import BadRequest, Conflict, Forbidden, NotFound


class CheckpointNotFound(NotFound):
    """No such checkpoint, or the caller may not see it."""

    def __init__(self, checkpoint_id: str) -> None:
        super().__init__(f"checkpoint with id {checkpoint_id} not found")


class NotTheCreator(Forbidden):
    """The caller sees the checkpoint, but may not change it."""

    def __init__(self, checkpoint_id: str) -> None:
        super().__init__(
            f"checkpoint {checkpoint_id} may be changed by its creator or with the permission checkpoint:all"
        )


class ActsForAnother(Forbidden):
    """The body names another user as creator."""

    def __init__(self, creator: str) -> None:
        super().__init__(f'acting for the user "{creator}" needs the permission user:all')


class UnknownUser(BadRequest):
    """The body names a user who does not exist."""

    def __init__(self, username: str) -> None:
        super().__init__(f'user: "{username}" not exist')


class NameTaken(BadRequest):
    """A live checkpoint has a file of this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} already exists, please use another or rename/delete exists")


class UnusableFileName(BadRequest):
    """The file name cannot be used."""


class NoTags(BadRequest):
    """A completion without the parts' ETags."""

    message = "multi parts tags is empty"


class WrongParts(BadRequest):
    """The parts that the client names are not the parts that S3 holds."""


class UploadRefused(BadRequest):
    """S3 refused to put the parts together."""

    def __init__(self, filename: str, reason: str) -> None:
        super().__init__(f"S3 refused to complete the upload of {filename}: {reason}")


class UploadGone(BadRequest):
    """S3 no longer knows the upload; a new one was begun."""

    def __init__(self, checkpoint_id: str, filename: str) -> None:
        super().__init__(
            f"the upload of {filename} no longer exists in S3: a new one was begun, "
            f"see GET /checkpoints/{checkpoint_id}/uploads"
        )


class InvalidFile(BadRequest):
    """A file is not what its name says; a new upload of it was begun."""


class BusyCheckpoint(Conflict):
    """Another request or task works on the checkpoint."""

    def __init__(self, checkpoint_id: str) -> None:
        super().__init__(f"another request is working on checkpoint {checkpoint_id}, please try again")


class WrongState(Conflict):
    """The checkpoint is not in a state that allows this."""


class KeyReused(Conflict):
    """An Idempotency-Key that came with another body before."""

    message = "this Idempotency-Key was used for another request"


class Cancelled(Exception):
    """The checkpoint was deleted during the work, or somebody else has its lease; no client sees this."""
