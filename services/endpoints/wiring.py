"""The parts that the service's routes and tasks share, made from its settings."""

from dataclasses import dataclass
from datetime import timedelta

from flask import current_app

from services.common.mongo import Documents, open_database
from services.common.service_client import ServiceClient
from services.endpoints.autoscaling import Policy
from services.endpoints.backends import local
from services.endpoints.backends.local import LocalBackend
from services.endpoints.backends.protocol import Backend
from services.endpoints.backends.sagemaker import names
from services.endpoints.config import Config
from services.endpoints.creation import Creation, Directory
from services.endpoints.life import Controller
from services.endpoints.repository import Endpoint, Endpoints
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
    backend: Backend
    directory: Directory
    creation: Creation
    controller: Controller
    bucket: str

    def address(self, endpoint: Endpoint) -> dict[str, str | None]:
        """Where SageMaker takes the endpoint's jobs and puts its answers; nowhere for other backends."""
        there = endpoint["backend"] == names.NAME
        return {
            "sagemaker_endpoint_name": names.sagemaker_name(endpoint) if there else None,
            "sagemaker_output_path": names.output_path(self.bucket) if there else None,
            "sagemaker_failure_path": names.failure_path(self.bucket) if there else None,
        }


def wire(config: Config) -> Wiring:
    """Make the parts; nothing connects yet."""
    database = open_database(config.mongo, SERVICE)
    endpoints = Endpoints(database)
    workers = Workers(database, config.worker_lost_seconds)
    backend = LocalBackend(workers, dict(config.ceilings))
    secret = config.internal.service_secret
    directory = Directory(ServiceClient(SERVICE, config.internal.users_url, secret))
    controller = Controller(
        endpoints,
        backend,
        ServiceClient(SERVICE, config.inference_url, secret, INFERENCE_TIMEOUT_SECONDS),
        Policy(config.backlog_per_instance, timedelta(seconds=config.cooldown_seconds)),
        config.creation_seconds,
    )
    creation = Creation(endpoints, backend, local.NAME, directory)
    return Wiring(database, endpoints, workers, backend, directory, creation, controller, config.bucket)


def wired() -> Wiring:
    """The parts behind the current request."""
    parts: Wiring = current_app.extensions[SERVICE]
    return parts
