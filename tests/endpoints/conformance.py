"""A deployment of the endpoints service as its clients meet it, over HTTP, on each of its backends."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import requests
from flask import Flask
from werkzeug.serving import make_server

from services.common.times import now
from services.endpoints.wiring import SERVICE, Wiring
from tests.conftest import Keys
from tests.endpoints.aws import Aws
from tests.endpoints.conftest import Others

CAPACITY = 4


@dataclass
class Deployment(ABC):
    """The running service, and what its machines do; `local` and `sagemaker` below say how."""

    url: str
    app: Flask
    keys: Keys
    others: Others
    instance_type = ""
    unknown_instance_type = ""

    @property
    def wiring(self) -> Wiring:
        wiring: Wiring = self.app.extensions[SERVICE]
        return wiring

    # what clients do

    def call(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> requests.Response:
        return requests.request(
            method, self.url + path, json=body, headers=headers or self.keys.user(), timeout=30
        )

    def create(self, headers: dict[str, str] | None = None, **changes: Any) -> requests.Response:
        body = {
            "endpoint_type": "Async",
            "instance_type": self.instance_type,
            "initial_instance_count": "1",
            "autoscaling_enabled": False,
            "assign_to_roles": ["artists"],
            "creator": "ann",
        } | changes
        return self.call("POST", "/endpoints", body, headers)

    def created(self, **changes: Any) -> str:
        """The name of an endpoint that could be created."""
        answer = self.create(**changes)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["data"]["endpoint_name"])

    def in_service(self, **changes: Any) -> str:
        """The name of an endpoint that is in service."""
        name = self.created(**changes)
        self.settle()
        assert self.state(name) == "InService"
        return name

    def get(self, name: str) -> dict[str, Any]:
        answer = self.call("GET", f"/endpoints/{name}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json()["data"])

    def state(self, name: str) -> str:
        return str(self.get(name)["endpoint_status"])

    def count(self, name: str) -> str:
        return str(self.get(name)["current_instance_count"])

    def listed(self) -> list[str]:
        answer = self.call("GET", "/endpoints")
        assert answer.status_code == 200, answer.text
        return [endpoint["endpoint_name"] for endpoint in answer.json()["data"]["endpoints"]]

    def delete(self, *names: str, headers: dict[str, str] | None = None) -> requests.Response:
        return self.call("DELETE", "/endpoints", {"endpoint_name_list": list(names)}, headers)

    # what other services ask

    def candidates(self) -> list[dict[str, Any]]:
        question = {"roles": ["artists"], "see_all": False, "endpoint_type": None, "name": None}
        answer = self.call("POST", "/internal/candidates", question, self.keys.service())
        assert answer.status_code == 200, answer.text
        return list(answer.json()["endpoints"])

    # what time and machines do

    def pass_time_until_the_next_notice(self) -> None:
        """Inference is to be told again of endpoints that end."""
        due = {"notify_at": {"$exists": True}}
        self.wiring.database["endpoints"].update_many(due, {"$set": {"notify_at": now()}})

    @abstractmethod
    def settle(self) -> None:
        """As much time passes as machines need to follow."""

    @abstractmethod
    def begin_scaling_to(self, name: str, count: int) -> None:
        """The backlog, or what stands for it, asks for so many instances."""

    @abstractmethod
    def break_down(self, name: str) -> None:
        """The endpoint that is being created will never be in service."""

    @abstractmethod
    def leftovers(self) -> dict[str, list[str]]:
        """Whatever a deleted endpoint has left with the machines."""


class Local(Deployment):
    """Workers that register by heartbeat."""

    instance_type = "local.cpu"
    unknown_instance_type = "local.abacus"
    serving: dict[str, list[str]]

    def heartbeat(self, worker_id: str) -> None:
        body = {
            "instance_type": self.instance_type,
            "state": "idle",
            "slots": CAPACITY // 2,
            "endpoints": self.serving[worker_id],
        }
        path = f"/internal/workers/{worker_id}/heartbeat"
        answer = self.call("POST", path, body, self.keys.worker(worker_id))
        assert answer.status_code == 200, answer.text
        self.serving[worker_id] = [endpoint["name"] for endpoint in answer.json()["endpoints"]]

    def settle(self) -> None:
        self.wiring.controller.tick()
        for _ in range(2):  # a worker hears what to serve, then says that it does
            for worker_id in self.serving:
                self.heartbeat(worker_id)
        self.wiring.controller.tick()

    def begin_scaling_to(self, name: str, count: int) -> None:
        per_instance = 5
        self.others.backlog[name] = {"waiting": per_instance * count, "running": 0}
        self.wiring.controller.tick()

    def break_down(self, name: str) -> None:
        endpoints = self.wiring.database["endpoints"]
        long_ago = endpoints.find_one({"name": name})["created_at"].replace(year=2001)  # type: ignore[index]
        endpoints.update_one({"name": name}, {"$set": {"created_at": long_ago}})
        self.wiring.controller.tick()

    def leftovers(self) -> dict[str, list[str]]:
        taken = [slot["key"] for worker in self.wiring.workers.present() for slot in worker["slots_taken"]]
        return {"slots": taken}


class SageMaker(Deployment):
    """AWS, as moto and what is before it play it."""

    instance_type = "ml.g4dn.xlarge"
    unknown_instance_type = "ml.abacus.xlarge"
    aws: Aws

    def settle(self) -> None:
        self.wiring.controller.tick()
        for _ in range(2):
            self.wiring.controller.synchronise()
            self.aws.pass_time()
        self.wiring.controller.synchronise()
        self.wiring.controller.tick()

    def begin_scaling_to(self, name: str, count: int) -> None:
        self.aws.scale(count)
        self.aws.set_state("Updating")
        self.wiring.controller.synchronise()

    def break_down(self, name: str) -> None:
        self.aws.set_state("Failed", "The container did not pass the ping health check.")
        self.wiring.controller.synchronise()

    def leftovers(self) -> dict[str, list[str]]:
        return self.aws.names()


@contextmanager
def served(app: Flask) -> Iterator[str]:
    """The application behind a real socket."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
