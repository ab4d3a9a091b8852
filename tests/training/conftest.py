"""The training service alone, on real MongoDB and S3; checkpoints and datasets are stood for."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import requests
from flask import Flask
from werkzeug.test import TestResponse

from services.common.settings import read_settings
from services.training.app import create_app
from services.training.config import Config
from services.training.wiring import EXTENSION, Parts
from tests.conftest import EVERYTHING, Keys
from tests.neighbours import Neighbours, neighbours

NO_ALL = tuple(one for one in EVERYTHING if not one.endswith(":all"))
SHAPES = "shapes-v1.safetensors"
KIND = "Stable-diffusion"


@dataclass
class Platform:
    """What the other services know; tests change it."""

    files: set[tuple[str, str]] = field(default_factory=lambda: {(KIND, SHAPES)})
    datasets: dict[str, dict[str, Any]] = field(default_factory=dict)
    checkpoints: dict[str, dict[str, Any]] = field(default_factory=dict)
    adopt_error: str | None = None
    sizes: dict[str, int] = field(default_factory=dict)

    def dataset(self, name: str = "stars", **changes: Any) -> str:
        """A data set that can be trained on, but for the changes."""
        picture = {
            "filename": "a.png",
            "key": f"dataset/{name}/a.png",
            "etag": "e",
            "size": 9,
            "caption": "x",
        }
        good = {"name": name, "status": "Enabled", "verifying": False, "faulty": 0, "pictures": [picture]}
        self.datasets[name] = good | changes
        return name

    def answers(self) -> dict[str, Callable[[dict[str, Any]], dict[str, Any]]]:
        return {
            "resolve": self._resolve,
            "datasets/resolve": lambda body: {
                "datasets": [self.datasets[name] for name in body["names"] if name in self.datasets],
                "missing": [name for name in body["names"] if name not in self.datasets],
            },
            "checkpoints/reserve": self._reserve,
            "checkpoints/progress": lambda body: {"noted": True},
            "checkpoints/adopt": self._adopt,
            "checkpoints/give-up": self._give_up,
            "checkpoints/states": lambda body: {
                "checkpoints": {one: self.checkpoints[one] for one in body["ids"] if one in self.checkpoints}
            },
            "checkpoints/begin": self._begin,
            "checkpoints/complete": lambda body: (
                {"error": "multi parts tags is empty", "status": 400} if not body["tags"] else {}
            ),
            "checkpoints/delete": lambda body: {},
        }

    def _resolve(self, body: dict[str, Any]) -> dict[str, Any]:
        asked = [(kind, name) for kind, names in body["models"].items() for name in names]
        return {
            "models": [
                {"type": kind, "name": name, "id": f"id-{name}", "key": f"k/{name}"}
                | {
                    "size": self.sizes.get(name, 5),
                    "etag": "e",
                    "sha256": None,
                    "bucket": "b",
                    "s3_location": "s",
                }
                for kind, name in asked
                if (kind, name) in self.files
            ],
            "missing": [
                {"type": kind, "name": name} for kind, name in asked if (kind, name) not in self.files
            ],
        }

    def _reserve(self, body: dict[str, Any]) -> dict[str, Any]:
        if any(
            one["names"] == [body["filename"]] and one_id != body["id"]
            for one_id, one in self.checkpoints.items()
        ):
            return {"error": f"{body['filename']} already exists", "status": 400}
        self.checkpoints[body["id"]] = state("Initial", "making", body["filename"], body["type"])
        return {"checkpoint": {"id": body["id"], "status": "Initial", "name": [body["filename"]]}}

    def _adopt(self, body: dict[str, Any]) -> dict[str, Any]:
        if self.adopt_error is None:
            self.checkpoints[body["id"]]["status"] = "Active"
        return {"error": self.adopt_error}

    def _give_up(self, body: dict[str, Any]) -> dict[str, Any]:
        self.checkpoints[body["id"]] |= {"stage": "failed", "error": body["error"], "names": []}
        return {}

    def _begin(self, body: dict[str, Any]) -> dict[str, Any]:
        stage = "importing" if body.get("urls") else "uploading"
        self.checkpoints["made"] = state("Initial", stage, "m.safetensors")
        urls = {file["filename"]: ["http://s3/part"] for file in body.get("filenames", [])}
        return {"checkpoint": {"id": "made"}, "s3PresignUrl": urls}


def state(status: str, stage: str | None = None, name: str = SHAPES, kind: str = KIND) -> dict[str, Any]:
    """A checkpoint as the checkpoints service tells it."""
    told = {"status": status, "stage": stage, "error": None, "names": [name], "type": kind}
    return told | {"s3_location": "s3://b/k"}


@dataclass(frozen=True)
class Service:
    """The service as its users and GPU workers call it."""

    app: Flask
    keys: Keys
    platform: Platform
    others: Neighbours

    @classmethod
    def fresh(cls, app: Flask, keys: Keys, platform: Platform, others: Neighbours) -> "Service":
        """The service without a training, model or object."""
        others.calls.clear()
        others.answers = dict(platform.answers())
        made = cls(app, keys, platform, others)
        for name in ("work", "models"):
            made.parts.database[name].delete_many({})
        made.parts.storage.objects.delete_under("train/")
        return made

    @property
    def parts(self) -> Parts:
        parts: Parts = self.app.extensions[EXTENSION]
        return parts

    def user(self, name: str = "ann", **claims: Any) -> dict[str, str]:
        return self.keys.user(name, ("artists",), **({"permissions": NO_ALL} | claims))

    def call(
        self, method: str, path: str, body: Any = None, who: dict[str, str] | None = None, **headers: str
    ) -> TestResponse:
        sent = (self.user() if who is None else who) | headers
        return self.app.test_client().open(path, method=method, json=body, headers=sent)

    def message(self, method: str, path: str, body: Any = None, status: int = 400) -> str:
        """The sentence of a refusal."""
        answer = self.call(method, path, body)
        assert answer.status_code == status, answer.text
        return str(answer.json["message"])

    def create(self, dataset: str = "stars", training: Any = None, **config: Any) -> str:
        """The id of a new training."""
        params = {"training_params": {"model": SHAPES, "dataset": dataset} | (training or {})}
        body = {"train_type": "Stable-diffusion", "params": params | {"config_params": config}}
        answer = self.call("POST", "/trainings", body)
        assert answer.status_code == 201, answer.text
        return str(answer.json["data"]["job"]["id"])

    def started(self, **config: Any) -> str:
        """The id of a training that waits for a worker."""
        training_id = self.create(**config)
        answer = self.call("PUT", f"/trainings/{training_id}/start")
        assert answer.status_code == 202, answer.text
        return training_id

    def shown(self, training_id: str) -> dict[str, Any]:
        return dict(self.call("GET", f"/trainings/{training_id}").json["data"])

    def status(self, training_id: str) -> str:
        return str(self.shown(training_id)["job_status"])

    def work(self, path: str, worker: str = "worker-1", **body: Any) -> TestResponse:
        """A GPU worker's call."""
        body = {"worker_id": worker} | body
        headers = self.keys.worker(worker)
        return self.app.test_client().post(f"/internal/{path}", json=body, headers=headers)

    def claimed(self, worker: str = "worker-1", instance_type: str = "local.cpu") -> dict[str, Any] | None:
        answer = self.work("claim", worker, instance_type=instance_type)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] | None = answer.json["work"]
        return found

    def upload(self, work_id: str, name: str, content: bytes = b"x", **who: Any) -> dict[str, Any]:
        """A file that the worker has uploaded, as it names it afterwards."""
        answer = self.work(f"jobs/{work_id}/uploads", files={name: 1}, **({"attempt": 1} | who))
        assert answer.status_code == 200, answer.text
        made = answer.json["uploads"][name]
        put = requests.put(made["urls"][0], data=content, timeout=10)
        return {"name": name, "upload_id": made["upload_id"], "etags": [put.headers["ETag"].strip('"')]}

    def expire_lease(self, work_id: str) -> None:
        past = {"$subtract": ["$$NOW", 60_000]}
        self.parts.database["work"].update_one({"_id": work_id}, [{"$set": {"lease.expires_at": past}}])


@pytest.fixture(scope="session")
def running_neighbours() -> Iterator[Neighbours]:
    with neighbours() as running:
        yield running


@contextmanager
def serve(app: Flask) -> Iterator[Flask]:
    """The application, whose background work the tests do."""
    parts: Parts = app.extensions[EXTENSION]
    parts.running._ask_to_finish = lambda _: None
    parts.following._ask_to_finish = lambda _: None
    yield app
    parts.database.client.drop_database(parts.database.name)
    parts.database.client.close()


@pytest.fixture(scope="session")
def application(
    environment: Callable[..., dict[str, str]], keys: Keys, running_neighbours: Neighbours
) -> Iterator[Flask]:
    url = running_neighbours.url
    variables = environment(CHECKPOINTS_URL=url, DATASETS_URL=url)
    with serve(create_app(read_settings(Config, variables), users_keys=keys)) as app:
        yield app


@pytest.fixture()
def service(application: Flask, keys: Keys, running_neighbours: Neighbours) -> Service:
    platform = Platform()
    platform.dataset()
    return Service.fresh(application, keys, platform, running_neighbours)
