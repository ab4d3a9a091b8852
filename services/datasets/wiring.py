"""The parts of the service, wired once per process, for the web application and the Celery worker."""

from collections.abc import Callable
from dataclasses import dataclass

from flask import current_app

from services.common.mongo import Documents, open_database
from services.common.s3 import ObjectStore
from services.common.service_client import ServiceClient
from services.datasets.background import Background
from services.datasets.config import Config
from services.datasets.creation import Creation
from services.datasets.pictures import Limits
from services.datasets.repository import Repository
from services.datasets.storage import DatasetStorage

EXTENSION = "sdfleet.datasets"


@dataclass(frozen=True)
class Parts:
    """What routes and tasks work with; `ask` tells Celery that a data set waits."""

    config: Config
    database: Documents
    repository: Repository
    storage: DatasetStorage
    creation: Creation
    background: Background
    ask: Callable[[str], None]


def connect(config: Config, ask: Callable[[str], None]) -> Parts:
    """Wire the parts; they connect with their first use."""
    database = open_database(config.mongo, "datasets")
    repository = Repository(database)
    storage = DatasetStorage(ObjectStore(config.s3))
    users = ServiceClient("datasets", config.internal.users_url, config.internal.service_secret)
    limits = Limits(
        most_bytes=int(config.most_picture_mb * 10**6),
        most_pixels=int(config.most_megapixels * 10**6),
        least_side=config.least_side,
    )
    return Parts(
        config=config,
        database=database,
        repository=repository,
        storage=storage,
        creation=Creation(repository, users),
        background=Background(repository, storage, limits, config.lease_seconds),
        ask=ask,
    )


def current_parts() -> Parts:
    """The parts of the application that answers the current request."""
    parts: Parts = current_app.extensions[EXTENSION]
    return parts
