"""The parts that the service's routes and tasks share, made from its settings."""

from dataclasses import dataclass
from datetime import timedelta

from flask import current_app

from services.common.mongo import Documents, open_database
from services.common.service_client import ServiceClient
from services.endpoints.autoscaling import Policy
from services.endpoints.backends.choice import Backends
from services.endpoints.backends.local import LocalBackend
from services.endpoints.backends.protocol import Backend
from services.endpoints.backends.sagemaker import names
from services.endpoints.backends.sagemaker.aws import Aws
from services.endpoints.backends.sagemaker.backend import SageMakerBackend
from services.endpoints.backends.sagemaker.repository import Deployments
from services.endpoints.config import Config
from services.endpoints.creation import Creation, Directory
from services.endpoints.life import Controller
from services.endpoints.repository import Endpoints
from services.endpoints.workers import Workers

SERVICE = "endpoints"
# Inference is told again by the next tick: a request or a tick does not wait long for it.
INFERENCE_TIMEOUT_SECONDS = 2.0


@dataclass(frozen=True)
class Wiring:
    """The service without its web front."""

    database: Documents
    endpoints: Endpoints
    workers: Workers
    backends: Backends
    directory: Directory
    creation: Creation
    controller: Controller


def wire(config: Config) -> Wiring:
    """Make the parts; nothing connects yet."""
    database = open_database(config.mongo, SERVICE)
    endpoints = Endpoints(database)
    workers = Workers(database, config.worker_lost_seconds)
    backends = Backends({name: _make(name, config, database, workers) for name in config.backends})
    secret = config.internal.service_secret
    directory = Directory(ServiceClient(SERVICE, config.internal.users_url, secret))
    controller = Controller(
        endpoints,
        backends,
        ServiceClient(SERVICE, config.inference_url, secret, INFERENCE_TIMEOUT_SECONDS),
        Policy(config.backlog_per_instance, timedelta(seconds=config.cooldown_seconds)),
    )
    creation = Creation(endpoints, backends, directory)
    return Wiring(database, endpoints, workers, backends, directory, creation, controller)


def _make(name: str, config: Config, database: Documents, workers: Workers) -> Backend:
    if name == names.NAME:
        return SageMakerBackend(Deployments(database), Aws(config.sagemaker), config)
    return LocalBackend(workers, dict(config.ceilings), config.creation_seconds)


def wired() -> Wiring:
    """The parts behind the current request."""
    parts: Wiring = current_app.extensions[SERVICE]
    return parts
