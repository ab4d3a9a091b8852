"""The parts of the service, wired once per process, for the web application and the Celery worker."""

from collections.abc import Callable
from dataclasses import dataclass

from flask import current_app

from services.checkpoints.config import CONVERT, Config
from services.checkpoints.conversion import Conversion
from services.checkpoints.deletion import Deletion
from services.checkpoints.fetching import ImportLimits
from services.checkpoints.imports import Imports
from services.checkpoints.moves import Moves
from services.checkpoints.neighbours import Neighbours
from services.checkpoints.repository import Repository
from services.checkpoints.storage import CheckpointStorage
from services.checkpoints.uploads import Uploads
from services.common.mongo import Documents, open_database
from services.common.s3 import ObjectStore
from services.common.service_client import ServiceClient

EXTENSION = "sdfleet.checkpoints"


@dataclass(frozen=True)
class Parts:
    """What routes and tasks work with."""

    config: Config
    background: "Background"
    database: Documents
    repository: Repository
    storage: CheckpointStorage
    neighbours: Neighbours
    deletion: Deletion
    uploads: Uploads
    moves: Moves
    imports: Imports


@dataclass(frozen=True)
class Background:
    """Asks the Celery worker for work on a checkpoint, by its id; a fetch may have a sealed token."""

    verify: Callable[[str], None]
    move: Callable[[str], None]
    fetch: Callable[..., None]


def connect(config: Config, background: Background) -> Parts:
    """Wire the parts; they connect with their first use."""
    database = open_database(config.mongo, "checkpoints")
    repository = Repository(database)
    storage = CheckpointStorage(ObjectStore(config.s3))
    secret = config.internal.service_secret
    neighbours = Neighbours(
        ServiceClient("checkpoints", config.internal.users_url, secret),
        ServiceClient("checkpoints", config.inference_url, secret),
        ServiceClient("checkpoints", config.training_url, secret),
    )
    deletion = Deletion(repository, storage, neighbours)
    conversion = Conversion(storage, config.convert_folder, config.converter)
    uploads = Uploads(repository, storage, deletion, conversion, config.lease_seconds, background.verify)
    moves = Moves(repository, storage, deletion, config.lease_seconds, background.move)
    limits = ImportLimits(
        allowed_hosts=config.import_allowed_hosts,
        tokens=dict(config.import_tokens),
        most_bytes=int(config.import_most_gb * 10**9),
        least_rate=config.import_least_rate,
        patience=config.import_patience,
        pickles=config.pickles == CONVERT,
    )
    imports = Imports(repository, storage, deletion, conversion, config.lease_seconds, limits)
    return Parts(
        config, background, database, repository, storage, neighbours, deletion, uploads, moves, imports
    )


def current_parts() -> Parts:
    """The parts of the application that answers the current request."""
    parts: Parts = current_app.extensions[EXTENSION]
    return parts
