"""All services together in one process, and what one user has there that another tries to reach."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import Any

import boto3
import pytest
import requests
from flask import Flask
from werkzeug.exceptions import NotFound
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.serving import make_server
from werkzeug.test import TestResponse

from services.common.identity import HEADER
from services.common.mongo import open_database
from services.common.settings import MongoSettings, read_settings
from tests.conftest import EVERYTHING, Keys
from tests.users.driver import ADMIN_KEY, ADMIN_PASSWORD, CHEAP_PASSWORDS, Driver, Person

SERVICES = sorted(path.parent.name for path in Path("services").glob("*/app.py"))
NO_ALL = tuple(one for one in EVERYTHING if not one.endswith(":all"))
# What changes by itself, or because somebody looked.
MOVING = {
    "audit",
    "sessions",
    "refresh_tokens",
    "sign_in_counters",
    "shares",
    "controller",
    "workers",
    "guard",
}


@dataclass
class World:
    """The services, and two users who may do everything with what is theirs."""

    apps: dict[str, Flask]
    driver: Driver
    environment: dict[str, str]
    owner: Person
    stranger: Person
    owned: dict[str, str]

    def call(
        self, service: str, method: str, path: str, who: Person, body: Any = None, query: Any = None
    ) -> TestResponse:
        """A client's call, as the gateway hands it on."""
        credentials = {"x-api-key": ADMIN_KEY, "Authorization": f"Bearer {who.token}"}
        verdict = self.driver.ask(credentials)
        assert verdict.status_code == 200, verdict.text
        headers = {HEADER: verdict.headers["X-Internal-Token"]}
        client = self.apps[service].test_client()
        return client.open(path, method=method, json=body, query_string=query, headers=headers)

    def everything(self) -> dict[str, Any]:
        """Every document and object that is there, but for those that change by themselves."""
        settings = read_settings(MongoSettings, self.environment)
        found: dict[str, Any] = {}
        for service in SERVICES:
            database = open_database(settings, service)
            for name in database.list_collection_names():
                if name not in MOVING:
                    found |= {
                        f"{service}/{name}/{one['_id']}": one
                        for one in database[name].find({}, {"last_used_at": False})
                    }
            database.client.close()
        s3 = boto3.client(
            "s3",
            endpoint_url=self.environment["S3_ENDPOINT_URL"],
            aws_access_key_id=self.environment["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.environment["AWS_SECRET_ACCESS_KEY"],
            region_name="us-east-1",
        )
        listed = s3.list_objects_v2(Bucket=self.environment["S3_BUCKET"]).get("Contents", [])
        return found | {f"s3/{one['Key']}": one["ETag"] for one in listed}


@contextmanager
def make_world(environment: Callable[..., dict[str, str]], keys: Keys) -> Iterator[World]:
    """Start every service; they speak to one another over HTTP, each under its name."""
    dispatcher = DispatcherMiddleware(NotFound())
    server = make_server("127.0.0.1", 0, dispatcher, threaded=True)
    thread = Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    variables = (
        environment(**{f"{name.upper()}_URL": f"{address}/{name}" for name in SERVICES})
        | CHEAP_PASSWORDS
        | {
            "ADMIN_PASSWORD": ADMIN_PASSWORD,
            "ADMIN_API_KEY": ADMIN_KEY,
            "AUTHENTICATION_CACHE_SECONDS": "0",
        }
    )
    try:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            apps = {}
            for name in ["users", *(one for one in SERVICES if one != "users")]:
                apps[name] = import_module(f"services.{name}.app").create_app()
                dispatcher.mounts = {**dispatcher.mounts, f"/{name}": apps[name]}
        yield _populated(apps, variables, keys)
    finally:
        server.shutdown()
        thread.join()


def _populated(apps: dict[str, Flask], environment: dict[str, str], keys: Keys) -> World:
    driver = Driver(apps["users"])
    owner, stranger = driver.person(*NO_ALL), driver.person(*NO_ALL)
    world = World(apps, driver, environment, owner, stranger, {"user": owner.username})
    owned = world.owned
    owned["owners role"] = driver.shown(owner.username)["roles"][0]
    owned["role"] = driver.role("inference:list", by=owner)
    owned["user made"] = driver.person(roles=[owned["role"]], by=owner).username
    key = _made(world, "users", "/users/me/api-keys", {"name": "owned-key"})["api_key"]
    owned["key"] = key["id"]
    _checkpoint(world)
    _endpoint(world, keys)
    _jobs(world)
    _webhook(world)
    _dataset(world)
    _training(world)
    return world


def _made(world: World, service: str, path: str, body: Any, method: str = "POST") -> dict[str, Any]:
    answer = world.call(service, method, path, world.owner, body)
    assert answer.status_code < 300, answer.text
    return dict(answer.json["data"])  # type: ignore[index]


def _checkpoint(world: World) -> None:
    """One that waits for its parts."""
    wanted = {
        "checkpoint_type": "Lora",
        "filenames": [{"filename": "owned-lora.safetensors", "parts_number": 2}],
        "params": {"message": "owned-message"},
    }
    world.owned["checkpoint"] = _made(world, "checkpoints", "/checkpoints", wanted)["checkpoint"]["id"]


def _endpoint(world: World, keys: Keys) -> None:
    worker = {
        "host": "box",
        "instance_type": "local.cpu",
        "device": "cpu",
        "device_name": "two cores",
        "memory_bytes": 2**30,
        "version": "0.1.0",
        "state": "idle",
        "slots": 4,
        "loaded": [],
        "running": [],
        "endpoints": [],
    }
    client, headers = world.apps["endpoints"].test_client(), keys.worker("worker-1")
    client.post("/internal/workers/worker-1/heartbeat", json=worker, headers=headers)
    wanted = {
        "endpoint_name": "owned",
        "endpoint_type": "Async",
        "instance_type": "local.cpu",
        "initial_instance_count": 1,
        "autoscaling_enabled": False,
        "assign_to_roles": [world.owned["owners role"]],
        "creator": world.owner.username,
    }
    made = _made(world, "endpoints", "/endpoints", wanted)
    world.owned["endpoint"], world.owned["endpoint id"] = (
        made["endpoint_name"],
        made["EndpointDeploymentJobId"],
    )


def _jobs(world: World) -> None:
    """One that is created, one that waits."""
    for name in ("job", "waiting job"):
        wanted = {
            "user_id": world.owner.username,
            "inference_type": "Async",
            "task_type": "rembg",
            "models": {},
        }
        job = _made(world, "inference", "/inferences", wanted)["inference"]
        requests.put(job["api_params_s3_upload_url"], data="{}", timeout=10).raise_for_status()
        world.owned[name] = job["id"]
    _made(world, "inference", f"/inferences/{world.owned['waiting job']}/start", {}, "PUT")


def _webhook(world: World) -> None:
    made = _made(world, "inference", "/webhooks", {"url": "https://owned.example/hook"})
    world.owned["webhook"] = made["webhook"]["id"]


def _dataset(world: World) -> None:
    wanted = {"dataset_name": "owned-set", "content": [{"filename": "owned.png"}]}
    made = _made(world, "datasets", "/datasets", wanted)
    requests.put(made["s3PresignUrl"]["owned.png"], data=b"png", timeout=10).raise_for_status()
    world.owned["dataset"] = "owned-set"


def _training(world: World) -> None:
    """One that is created, of a model that waits for its file."""
    file = {"filename": "owned-model.safetensors", "parts_number": 1}
    wanted = {"model_type": "Stable-diffusion", "name": "owned-model", "filenames": [file]}
    world.owned["model"] = _made(world, "training", "/models", wanted)["job"]["id"]
    body = {"train_type": "Stable-diffusion", "model_id": world.owned["model"]}
    body |= {"params": {"training_params": {"dataset": "owned-set"}}}
    world.owned["training"] = _made(world, "training", "/trainings", body)["job"]["id"]
