"""The parts of the inference service, wired once per process."""

from dataclasses import dataclass

from services.common.bells import Bells
from services.common.events import JobEvents
from services.common.mongo import Documents, open_database
from services.common.queues import make_celery
from services.common.s3 import ObjectStore
from services.common.service_client import ServiceClient
from services.inference.config import Config
from services.inference.creation import JobCreation
from services.inference.deletion import EndpointEnd, JobDeletion
from services.inference.repository import Jobs
from services.inference.running import JobRunning
from services.inference.starting import JobStart
from services.inference.storage import JobStorage


@dataclass(frozen=True)
class Context:
    """What routes and tasks work with."""

    config: Config
    database: Documents
    jobs: Jobs
    storage: JobStorage
    bells: Bells
    events: JobEvents
    creation: JobCreation
    start: JobStart
    running: JobRunning
    deletion: JobDeletion
    endpoint_end: EndpointEnd


def open_context(config: Config) -> Context:
    """Wire the parts; connections are made when they are first used."""
    database = open_database(config.mongo, "inference")
    jobs = Jobs(database)
    storage = JobStorage(ObjectStore(config.s3))
    bells = Bells(make_celery("inference-bells", broker_url=config.redis_url))
    events = JobEvents(config.redis_url)
    secret = config.internal.service_secret
    users, checkpoints, endpoints = (
        ServiceClient("inference", url, secret)
        for url in (config.internal.users_url, config.checkpoints_url, config.endpoints_url)
    )
    return Context(
        config=config,
        database=database,
        jobs=jobs,
        storage=storage,
        bells=bells,
        events=events,
        creation=JobCreation(jobs, users, checkpoints, endpoints),
        start=JobStart(jobs, storage, bells, events, config.realtime_wait_seconds),
        running=JobRunning(jobs, storage, bells, events, config.lease_seconds, config.max_attempts),
        deletion=JobDeletion(jobs, storage, bells, config.lease_seconds),
        endpoint_end=EndpointEnd(jobs, endpoints, bells, events),
    )
