"""The inference service alone, on real MongoDB, S3 and Redis."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import requests
from flask import Flask
from flask.testing import FlaskClient

from services.common.settings import read_settings
from services.inference.app import create_app
from services.inference.config import Config
from services.inference.context import Context
from tests.conftest import Keys
from tests.neighbours import Neighbours, neighbours

SHAPES = {
    "type": "Stable-diffusion",
    "name": "shapes-v1.safetensors",
    "id": "c1",
    "s3_location": "s3://test/Stable-diffusion/checkpoint/custom/c1",
    "bucket": "test",
    "key": "Stable-diffusion/checkpoint/custom/c1/shapes-v1.safetensors",
    "size": 10,
    "etag": '"e"',
    "sha256": None,
}
ENDPOINT = {
    "id": "e1",
    "name": "esd-async-one",
    "type": "Async",
    "instance_type": "local.cpu",
    "backend": "local",
    "status": "InService",
    "roles": ["artists"],
    "instance_count": 1,
}
WANTED = {
    "user_id": "ann",
    "inference_type": "Async",
    "task_type": "txt2img",
    "models": {"Stable-diffusion": ["shapes-v1.safetensors"]},
}


@dataclass
class Service:
    """The service under test and its surroundings."""

    client: FlaskClient
    context: Context
    keys: Keys
    others: Neighbours

    def post(self, path: str, body: Any = None, **user: Any) -> Any:
        return self.client.post(path, json=body, headers=self.keys.user(**user))

    def put(self, path: str, body: Any = None, **user: Any) -> Any:
        return self.client.put(path, json=body, headers=self.keys.user(**user))

    def get(self, path: str, **user: Any) -> Any:
        return self.client.get(path, headers=self.keys.user(**user))

    def delete(self, path: str, body: Any = None, **user: Any) -> Any:
        return self.client.delete(path, json=body, headers=self.keys.user(**user))

    def work(self, path: str, worker: str = "worker-1", **body: Any) -> Any:
        """A GPU worker's call."""
        body = {"worker_id": worker} | body
        return self.client.post(f"/internal/{path}", json=body, headers=self.keys.worker(worker))

    def create(self, **changes: Any) -> dict[str, Any]:
        """A created job, as its creation answers."""
        response = self.post("/inferences", WANTED | changes)
        assert response.status_code == 201, response.json
        return response.json["data"]["inference"]

    def prepared(
        self,
        parameters: str = '{"prompt": "a red circle", "width": 64, "height": 64}',
        user: str = "ann",
        **changes: Any,
    ) -> str:
        """The id of a job that only needs to be started."""
        job = self.create(user_id=user, **changes)
        requests.put(job["api_params_s3_upload_url"], data=parameters, timeout=10).raise_for_status()
        return str(job["id"])

    def started(self, *parameters: str, **changes: Any) -> str:
        """The id of a job that waits in line."""
        job_id = self.prepared(*parameters, **changes)
        response = self.put(f"/inferences/{job_id}/start")
        assert response.status_code == 202, response.json
        return job_id

    def claimed(self, worker: str = "worker-1") -> dict[str, Any]:
        """The next job in line, claimed."""
        (job,) = self.work("claim", worker, endpoints=[ENDPOINT["name"]]).json["jobs"]
        return dict(job)

    def expire_lease(self, job_id: str) -> None:
        """Let the lease of a running job run out now."""
        past = {"$subtract": ["$$NOW", 60_000]}
        jobs = self.context.database["jobs"]
        jobs.update_one({"_id": job_id}, [{"$set": {"lease.expires_at": past}}])


@pytest.fixture(scope="session")
def running_neighbours() -> Iterator[Neighbours]:
    with neighbours() as running:
        yield running


@pytest.fixture()
def others(running_neighbours: Neighbours) -> Neighbours:
    running_neighbours.calls.clear()
    running_neighbours.answers = {
        "resolve": _resolve,
        "endpoint": lambda body: {"endpoint": None},
        "candidates": lambda body: {"endpoints": _candidates(body)},
        "names": lambda body: {
            "missing_usernames": [name for name in body["usernames"] if name != "ben"],
            "missing_roles": [],
            "roles_of": {"ben": ["artists"]},
        },
    }
    return running_neighbours


def _resolve(body: dict[str, Any]) -> dict[str, Any]:
    asked = [(kind, name) for kind, names in body["models"].items() for name in names]
    known = ("Stable-diffusion", "shapes-v1.safetensors")
    return {
        "models": [SHAPES for one in asked if one == known],
        "missing": [{"type": kind, "name": name} for kind, name in asked if (kind, name) != known],
    }


def _candidates(body: dict[str, Any]) -> list[dict[str, Any]]:
    realtime = ENDPOINT | {"id": "e2", "name": "esd-real-time-one", "type": "Real-time"}
    return [
        endpoint
        for endpoint in (ENDPOINT, realtime)
        if body["endpoint_type"] in (None, endpoint["type"])
        and body["name"] in (None, endpoint["name"], endpoint["id"])
        and (body["see_all"] or set(body["roles"]) & set(endpoint["roles"]))
    ]


@pytest.fixture(scope="session")
def application(
    environment: Callable[..., dict[str, str]], keys: Keys, running_neighbours: Neighbours
) -> Iterator[Flask]:
    url = running_neighbours.url
    variables = environment(CHECKPOINTS_URL=url, ENDPOINTS_URL=url, USERS_URL=url, REALTIME_WAIT_SECONDS="3")
    app = create_app(read_settings(Config, variables), users_keys=keys)
    yield app
    database = app.extensions["inference"].database
    database.client.drop_database(database.name)
    database.client.close()


@pytest.fixture()
def service(application: Flask, keys: Keys, others: Neighbours) -> Service:
    context = application.extensions["inference"]
    for name in ("jobs", "shares", "paces"):
        context.database[name].delete_many({})
    return Service(application.test_client(), context, keys, others)


@pytest.fixture()
def limited(
    environment: Callable[..., dict[str, str]], keys: Keys, others: Neighbours
) -> Iterator[Callable[..., Service]]:
    """Makes a service whose users have limits."""
    contexts: list[Context] = []

    def make(**limits: Any) -> Service:
        urls = dict.fromkeys(("CHECKPOINTS_URL", "ENDPOINTS_URL", "USERS_URL"), others.url)
        variables = environment(INFERENCE_LIMITS=json.dumps(limits), **urls)
        app = create_app(read_settings(Config, variables), users_keys=keys)
        contexts.append(app.extensions["inference"])
        return Service(app.test_client(), contexts[-1], keys, others)

    yield make
    for context in contexts:
        context.database.client.drop_database(context.database.name)
        context.database.client.close()
