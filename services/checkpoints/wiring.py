"""The parts of the service, wired once per process, for the web application and the Celery worker."""

from collections.abc import Callable
from dataclasses import dataclass

from flask import current_app

from services.checkpoints.config import Config
from services.checkpoints.deletion import Deletion
from services.checkpoints.moves import Moves
from services.checkpoints.repository import Repository
from services.checkpoints.storage import CheckpointStorage
from services.checkpoints.uploads import Uploads
from services.common.mongo import Documents, open_database
from services.common.s3 import ObjectStore

EXTENSION = "sdfleet.checkpoints"


@dataclass(frozen=True)
class Parts:
    """What routes and tasks work with."""

    config: Config
    database: Documents
    repository: Repository
    storage: CheckpointStorage
    deletion: Deletion
    uploads: Uploads
    moves: Moves


@dataclass(frozen=True)
class Background:
    """Asks the Celery worker for work on a checkpoint, by its id."""

    verify: Callable[[str], None]
    move: Callable[[str], None]


def connect(config: Config, background: Background) -> Parts:
    """Wire the parts; they connect with their first use."""
    database = open_database(config.mongo, "checkpoints")
    repository = Repository(database)
    storage = CheckpointStorage(ObjectStore(config.s3))
    deletion = Deletion(repository, storage)
    uploads = Uploads(repository, storage, deletion, config.lease_seconds, background.verify)
    moves = Moves(repository, storage, deletion, config.lease_seconds, background.move)
    return Parts(config, database, repository, storage, deletion, uploads, moves)


def current_parts() -> Parts:
    """The parts of the application that answers the current request."""
    parts: Parts = current_app.extensions[EXTENSION]
    return parts
