"""What a checkpoint is: its files, its states, and who may see it."""

from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from typing import Any, Self

from services.checkpoints.filenames import is_pickle
from services.common.identity import Caller

INITIAL, ACTIVE, DISABLED = STATUSES = ("Initial", "Active", "Disabled")
DELETING = "Deleting"  # no client sees it: its names are free, its objects are about to go

# What an Initial checkpoint waits for.
UPLOADING, VERIFYING, IMPORTING, MAKING, FAILED = "uploading", "verifying", "importing", "making", "failed"


@dataclass(frozen=True)
class File:
    """One file of a checkpoint."""

    name: str
    key: str
    parts_number: int = 0
    upload_id: str | None = None
    size: int | None = None  # bytes; known from the parts before they are put together
    etag: str | None = None  # the object is whole and its header was found valid
    sha256: str | None = None  # lower-case hex: what the client promised, or what was computed
    url: str | None = None  # where an import fetches it; forgotten when it is complete
    source_etag: str | None = None  # of what is being imported: only the same is gone on with
    found: dict[str, Any] | None = None  # {type, architecture, metadata} that the header told

    @property
    def complete(self) -> bool:
        """Whether the object is whole and valid."""
        return self.etag is not None


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as MongoDB keeps it."""

    id: str
    type: str
    status: str
    creator: str
    allowed: list[str]
    files: list[File]
    params: dict[str, Any]
    created: datetime
    touched: datetime
    stage: str | None = None
    error: str | None = None
    progress: dict[str, Any] | None = None
    move: dict[str, Any] | None = None  # {name, type} that a rename is going to give it
    trash: list[dict[str, Any]] = field(default_factory=list)  # {key, since} of objects that were moved away
    request_key: dict[str, Any] | None = None
    promised_until: datetime | None = None  # its files stay until then: a job or training with them may begin
    lease: dict[str, Any] | None = field(default=None, repr=False)

    @property
    def names(self) -> list[str]:
        """The names of its files."""
        return [file.name for file in self.files if file.name]  # an import learns them on the way

    @property
    def may_be_in_use(self) -> bool:
        """Whether jobs can have been promised its files."""
        return bool(self.files) and all(file.complete for file in self.files)

    @property
    def busy_with(self) -> str | None:
        """What is being done with it in the background."""
        if self.status == INITIAL and self.stage == VERIFYING:
            converting = any(is_pickle(file.name) for file in self.files)
            return "conversion" if converting else "verification"
        if self.status == INITIAL and self.stage == IMPORTING:
            return "creation"
        return "update" if self.move else None

    def to_document(self) -> dict[str, Any]:
        """What MongoDB keeps."""
        document = {key: value for key, value in asdict(self).items() if value is not None}
        document["_id"] = document.pop("id")
        return document

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> Self:
        """A checkpoint read from MongoDB; fields of newer versions are ignored."""
        known = {entry.name for entry in fields(cls)}
        values = {key: value for key, value in document.items() if key in known}
        values["files"] = [File(**file) for file in document["files"]]
        return cls(id=document["_id"], **values)


@dataclass(frozen=True)
class Viewer:
    """Somebody who looks at checkpoints."""

    username: str
    roles: tuple[str, ...] = ()
    see_all: bool = False

    @classmethod
    def of(cls, caller: Caller) -> Self:
        """The user behind a request."""
        return cls(caller.name, caller.roles, caller.may("checkpoint:all"))

    def owns(self, checkpoint: Checkpoint) -> bool:
        """Whether they may change it."""
        return self.see_all or checkpoint.creator == self.username
