"""The parts of the service, wired once per process, for the web application and the Celery worker."""

from collections.abc import Callable
from dataclasses import dataclass

from flask import current_app

from services.common.mongo import Documents, open_database
from services.common.s3 import ObjectStore
from services.common.service_client import ServiceClient
from services.training.config import Config
from services.training.finishing import Finishing
from services.training.merging import Merging
from services.training.model_repository import ModelRepository
from services.training.models import Models
from services.training.neighbours import Neighbours
from services.training.preparation import Preparation
from services.training.repository import WorkRepository
from services.training.running import Running
from services.training.sagemaker.following import Following
from services.training.sagemaker.jobs import Jobs
from services.training.storage import WorkStorage
from services.training.trainings import Trainings

EXTENSION = "sdfleet.training"
ADOPTION_SECONDS = 900.0


@dataclass(frozen=True)
class Parts:
    """What routes and tasks work with."""

    config: Config
    database: Documents
    work: WorkRepository
    model_repository: ModelRepository
    storage: WorkStorage
    models: Models
    trainings: Trainings
    merging: Merging
    running: Running
    following: Following
    finishing: Finishing


def connect(config: Config, ask_to_finish: Callable[[str], None]) -> Parts:
    """Wire the parts; they connect with their first use."""
    database = open_database(config.mongo, "training")
    work, models = WorkRepository(database), ModelRepository(database)
    storage = WorkStorage(ObjectStore(config.s3))
    secret = config.internal.service_secret
    neighbours = Neighbours(
        ServiceClient("training", config.checkpoints_url, secret),
        ServiceClient("training", config.checkpoints_url, secret, timeout=ADOPTION_SECONDS),
        ServiceClient("training", config.datasets_url, secret),
    )
    jobs = Jobs(config.sagemaker)
    finishing = Finishing(work, storage, neighbours, jobs)
    preparation = Preparation(work, neighbours, finishing, config.lease_seconds)
    return Parts(
        config=config,
        database=database,
        work=work,
        model_repository=models,
        storage=storage,
        models=Models(models, neighbours),
        trainings=Trainings(work, models, storage, neighbours, finishing, config.backends),
        merging=Merging(work, neighbours),
        running=Running(
            work,
            storage,
            preparation,
            finishing,
            ask_to_finish,
            config.lease_seconds,
            config.max_attempts,
        ),
        following=Following(
            work,
            storage,
            preparation,
            finishing,
            jobs,
            config.sagemaker,
            ask_to_finish,
            config.max_attempts,
        ),
        finishing=finishing,
    )


def current_parts() -> Parts:
    """The parts of the application that answers the current request."""
    parts: Parts = current_app.extensions[EXTENSION]
    return parts
