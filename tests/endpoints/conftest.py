"""The endpoints service on real MongoDB, with stand-ins for our own users and inference services."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from services.common.settings import read_settings
from services.endpoints.app import create_app
from services.endpoints.config import Config
from services.endpoints.wiring import SERVICE, Wiring
from tests.conftest import Keys
from tests.endpoints.aws import IMAGE, ROLE, Aws, running_aws
from tests.neighbours import Neighbours, neighbours

LOST_SECONDS = 0.6
EVERY_ROLE = ("artists", "sculptors", "painters", "dancers", "singers")


class Others:
    """Stands for our own users and inference services, over real HTTP."""

    def __init__(self, server: Neighbours) -> None:
        self.url = server.url
        self.roles = set(EVERY_ROLE)
        self.usernames = {"ann", "bob"}
        self.backlog: dict[str, dict[str, int]] = {}
        self.deleted: list[dict[str, Any]] = []
        self._answers = server.answers
        server.answers["names"] = self._names
        self.inference_answers()

    def inference_answers(self) -> None:
        self._answers["backlog"] = self._backlog
        self._answers["endpoint-deleted"] = self.deleted.append

    def inference_is_down(self) -> None:
        del self._answers["backlog"], self._answers["endpoint-deleted"]

    def _names(self, body: dict[str, Any]) -> dict[str, Any]:
        return {
            "missing_usernames": sorted(set(body["usernames"]) - self.usernames),
            "missing_roles": sorted(set(body["roles"]) - self.roles),
        }

    def _backlog(self, body: dict[str, Any]) -> dict[str, Any]:
        nothing = {"waiting": 0, "running": 0}
        return {name: self.backlog.get(name, nothing) for name in body["endpoints"]}


@pytest.fixture(scope="session")
def neighbourhood() -> Iterator[Neighbours]:
    with neighbours() as running:
        yield running


@pytest.fixture()
def others(neighbourhood: Neighbours) -> Others:
    """The stand-ins as they are at first."""
    return Others(neighbourhood)


@pytest.fixture(scope="session")
def aws_server() -> Iterator[Aws]:
    with running_aws() as running:
        yield running


@pytest.fixture()
def aws(aws_server: Aws) -> Aws:
    """AWS, where nothing is yet."""
    aws_server.reset()
    return aws_server


def on_sagemaker(aws: Aws) -> dict[str, str]:
    """The settings of a deployment that has both backends, SageMaker first."""
    return {
        "BACKENDS": "sagemaker,local",
        "SAGEMAKER_EXECUTION_ROLE_ARN": ROLE,
        "SAGEMAKER_IMAGE_URI": IMAGE,
        "SAGEMAKER_ENDPOINT_URL": aws.url,
        "SAGEMAKER_DRAIN_SECONDS": "3600",
        "SAGEMAKER_CONTAINER_ENVIRONMENT": "WORKER_DISK_CACHE_GB=20",
    }


@dataclass
class Service:
    """The running service, and short words for what clients ask of it."""

    client: FlaskClient
    keys: Keys
    environment: dict[str, str]

    @property
    def wiring(self) -> Wiring:
        wiring: Wiring = self.client.application.extensions[SERVICE]
        return wiring

    def create(self, user: dict[str, str] | None = None, **changes: Any) -> TestResponse:
        """POST /endpoints in its full form; a field that is None is left out."""
        body = {
            "endpoint_type": "Async",
            "instance_type": "local.cpu",
            "initial_instance_count": "1",
            "autoscaling_enabled": False,
            "assign_to_roles": ["artists"],
            "creator": "ann",
        } | changes
        present = {name: value for name, value in body.items() if value is not None}
        return self.client.post("/endpoints", json=present, headers=user or self.keys.user())

    def created(self, **changes: Any) -> dict[str, Any]:
        """The data of an endpoint that could be created."""
        answer = self.create(**changes)
        assert answer.status_code == 200, answer.json
        return dict(answer.json["data"])

    def get(self, name: str, user: dict[str, str] | None = None) -> dict[str, Any]:
        answer = self.client.get(f"/endpoints/{name}", headers=user or self.keys.user())
        assert answer.status_code == 200, answer.json
        return dict(answer.json["data"])

    def listed(self, user: dict[str, str] | None = None, query: str = "") -> list[dict[str, Any]]:
        answer = self.client.get(f"/endpoints{query}", headers=user or self.keys.user())
        assert answer.status_code == 200, answer.json
        return list(answer.json["data"]["endpoints"])

    def delete(self, *names: str, user: dict[str, str] | None = None) -> TestResponse:
        body = {"delete_endpoint_list": list(names), "username": "ann"}
        return self.client.delete("/endpoints", json=body, headers=user or self.keys.user())

    def ask(self, path: str, body: dict[str, Any]) -> Any:
        """Another service's call."""
        answer = self.client.post(path, json=body, headers=self.keys.service())
        assert answer.status_code == 200, answer.json
        return answer.json

    def candidates(self, **body: Any) -> list[dict[str, Any]]:
        asked = {"roles": ["artists"], "see_all": False, "endpoint_type": None, "name": None} | body
        return list(self.ask("/internal/candidates", asked)["endpoints"])

    def tick(self) -> None:
        """What beat asks for every two seconds."""
        self.wiring.controller.tick()


@dataclass
class GpuWorker:
    """Speaks as a GPU worker does: serves what the last answer told it to."""

    service: Service
    id: str = "worker-1"
    slots: int = 4
    instance_type: str = "local.cpu"
    state: str = "idle"
    serving: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)
    running: list[str] = field(default_factory=list)

    def heartbeat(self) -> list[str]:
        """One heartbeat; the names that it is to serve from now on."""
        body = {
            "host": "box",
            "instance_type": self.instance_type,
            "device": "cpu",
            "device_name": "two cores",
            "memory_bytes": 8 * 2**30,
            "version": "0.1.0",
            "state": self.state,
            "slots": self.slots,
            "loaded": self.loaded,
            "running": self.running,
            "endpoints": self.serving,
        }
        answer = self.service.client.application.test_client().post(
            f"/internal/workers/{self.id}/heartbeat", json=body, headers=self.service.keys.worker(self.id)
        )
        assert answer.status_code == 200, answer.json
        self.serving = [endpoint["name"] for endpoint in answer.json["endpoints"]]
        return self.serving

    def settle(self) -> None:
        """Two heartbeats: it hears what to serve, then says that it does."""
        self.heartbeat()
        self.heartbeat()


StartService = Callable[..., Service]


@pytest.fixture(scope="session")
def running() -> Iterator[dict[str, Service]]:
    """The services that tests of this run have started, by their settings; all use one database."""
    started: dict[str, Service] = {}
    yield started
    for service in started.values():
        service.wiring.database.client.close()


@pytest.fixture()
def start_service(
    environment: Callable[..., dict[str, str]],
    keys: Keys,
    others: Others,
    running: dict[str, Service],
) -> StartService:
    """Starts the service with these settings, on empty collections."""

    def start(**settings: str) -> Service:
        name = json.dumps(settings, sort_keys=True)
        if name not in running:
            variables = environment(
                MONGODB_DATABASE_PREFIX="test",
                USERS_URL=others.url,
                INFERENCE_URL=others.url,
                WORKER_LOST_SECONDS=settings.pop("WORKER_LOST_SECONDS", "30"),
                **settings,
            )
            app = create_app(read_settings(Config, variables), users_keys=keys)
            running[name] = Service(app.test_client(), keys, variables)
        service = running[name]
        for collection in ("endpoints", "workers"):
            service.wiring.database[collection].delete_many({})
        service.wiring.database["controller"].delete_many({"_id": {"$ne": "creation"}})
        return service

    return start


@pytest.fixture()
def service(start_service: StartService) -> Service:
    return start_service()


@pytest.fixture()
def worker(service: Service) -> GpuWorker:
    """A registered worker with four slots."""
    registered = GpuWorker(service)
    registered.heartbeat()
    return registered


def wait_until(condition: Callable[[], Any], seconds: float = 5.0) -> None:
    """Wait for a condition; fail when it does not come."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come about in time"
        time.sleep(0.02)
