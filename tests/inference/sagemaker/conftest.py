"""The inference service with SageMaker endpoints: a real container, and a server in the place of AWS."""

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from flask import Flask

from services.common.settings import read_settings
from services.inference.app import create_app
from services.inference.config import Config
from services.inference.context import Context
from stack.infrastructure import Infrastructure
from stack.settings import ROOT
from tests.conftest import Keys
from tests.gpu_worker.served import Served, served
from tests.inference.conftest import ENDPOINT, SHAPES, Service
from tests.neighbours import Neighbours
from tests.sagemaker_runtime import Runtime, running_runtime, wait_for

CHECKPOINT = ROOT / "house" / "shapes-v1.safetensors"
PARAMETERS = (
    '{"prompt": "a red circle on a white background", "steps": 2, "width": 64, "height": 64, "seed": 7}'
)
ASYNC, REALTIME = "sm-async", "sm-real-time"


@dataclass
class SageMakerService(Service):
    """The service under test, what stands for AWS, and what its background work does."""

    runtime: Runtime = None  # type: ignore[assignment]
    container: Served = None  # type: ignore[assignment]
    instances: int = 1

    @property
    def invocations(self) -> Any:
        return self.context.database["invocations"]

    def submit(self) -> None:
        """One run of the task that hands jobs over."""
        self.context.sagemaker.submission.submit_all()

    def pick_up(self) -> int:
        """One run of the task that looks for answers."""
        return self.context.sagemaker.pick_up.look()

    def answered(self) -> None:
        """Wait until SageMaker has nothing more to do."""
        wait_for(lambda: not self.runtime.at_sagemaker)

    def finished(self, job_id: str) -> dict[str, Any]:
        """The job once it is over, while the background work goes on."""

        def look() -> bool:
            self.submit(), self.pick_up()
            return self.shown(job_id)["status"] != "inprogress"

        wait_for(look)
        return self.shown(job_id)

    def shown(self, job_id: str) -> dict[str, Any]:
        return dict(self.get(f"/inferences/{job_id}").json["data"])

    def record(self, job_id: str) -> dict[str, Any]:
        return dict(self.context.database["jobs"].find_one({"_id": job_id}))

    def objects(self, job_id: str) -> list[str]:
        """The keys of everything in S3 that belongs to the job; without digests."""
        keys = (key for key in self.context.store.keys_under("") if job_id in key)
        return sorted(re.sub(r"started-[0-9a-f]{64}", "started", key) for key in keys)

    def parameters(self, job_id: str) -> list[str]:
        """The keys of a started job's parameters, as `objects` tells them."""
        return [f"txt2img/infer_v2/{job_id}/{name}.json" for name in ("api_param", "started")]

    def pass_time(self, job_id: str, *fields: str) -> None:
        """Let these moments of the job's invocations lie in the past."""
        past = {name: {"$subtract": ["$$NOW", 60_000]} for name in (*fields, "look_at")}
        self.invocations.update_many({"job_id": job_id}, [{"$set": past}])

    def end_pauses(self) -> None:
        self.context.database["sagemaker_lines"].update_many({}, {"$unset": {"paused_until": ""}})

    def realtime(self, parameters: str = PARAMETERS) -> Any:
        """The answer to the start of a Real-time job, and its id."""
        job = self.create(inference_type="Real-time")
        requests.put(job["api_params_s3_upload_url"], data=parameters, timeout=10).raise_for_status()
        return self.put(f"/inferences/{job['id']}/start"), str(job["id"])


@pytest.fixture(scope="session")
def container(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("container")) as running:
        yield running


@pytest.fixture(scope="session")
def runtime(parts: Infrastructure) -> Iterator[Runtime]:
    with running_runtime() as running:
        running.connect(
            endpoint_url=parts.s3_endpoint_url,
            aws_access_key_id=parts.s3_access_key,
            aws_secret_access_key=parts.s3_secret_key,
            region_name="us-east-1",
        )
        yield running


@pytest.fixture(scope="session")
def variables(
    environment: Callable[..., dict[str, str]], running_neighbours: Neighbours, runtime: Runtime
) -> dict[str, str]:
    url = running_neighbours.url
    return environment(
        CHECKPOINTS_URL=url,
        ENDPOINTS_URL=url,
        USERS_URL=url,
        REALTIME_WAIT_SECONDS="30",
        SAGEMAKER_RUNTIME_URL=runtime.url,
        SAGEMAKER_JOBS_PER_INSTANCE="2",
    )


@pytest.fixture(scope="session")
def sagemaker_app(variables: dict[str, str], keys: Keys) -> Iterator[Flask]:
    app = create_app(read_settings(Config, variables), users_keys=keys)
    context: Context = app.extensions["inference"]
    context.store.write(SHAPES["key"], CHECKPOINT.read_bytes())
    yield app
    context.database.client.drop_database(context.database.name)
    context.database.client.close()


@pytest.fixture()
def service(
    sagemaker_app: Flask, keys: Keys, others: Neighbours, runtime: Runtime, container: Served
) -> Iterator[SageMakerService]:
    context: Context = sagemaker_app.extensions["inference"]
    for name in ("jobs", "shares", "invocations", "sagemaker_lines"):
        context.database[name].delete_many({})
    runtime.reset()
    made = SageMakerService(sagemaker_app.test_client(), context, keys, others, runtime, container)
    others.answers["resolve"] = lambda _body: {"models": [_model(CHECKPOINT)], "missing": []}
    others.answers["candidates"] = lambda body: {"endpoints": _candidates(made, body)}
    runtime.add(ASYNC, [container.url], context.store.bucket)
    runtime.add(REALTIME, [container.url])
    yield made
    made.answered()


def _model(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    return SHAPES | {"size": len(content), "etag": f'"{hashlib.md5(content).hexdigest()}"'}


def _candidates(made: SageMakerService, body: dict[str, Any]) -> list[dict[str, Any]]:
    bucket = made.context.store.bucket
    common = ENDPOINT | {
        "backend": "sagemaker",
        "instance_type": "ml.g4dn.xlarge",
        "instance_count": made.instances,
        "sagemaker_output_path": f"s3://{bucket}/sagemaker_output",
        "sagemaker_failure_path": f"s3://{bucket}/sagemaker_failure",
    }
    endpoints = [
        common | {"sagemaker_endpoint_name": ASYNC},
        common
        | {"id": "e2", "name": "esd-real-time-one", "type": "Real-time", "sagemaker_endpoint_name": REALTIME},
    ]
    return [
        endpoint
        for endpoint in endpoints
        if body["endpoint_type"] in (None, endpoint["type"])
        and body["name"] in (None, endpoint["name"], endpoint["id"])
    ]
