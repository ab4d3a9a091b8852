"""Jobs through the gateway on both backends of endpoints: registered workers, and SageMaker."""

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import requests
from PIL import Image

from house.judge import read_picture
from stack.demo import journey
from stack.demo.client import Client, DemoFailed, put
from stack.secrets import load_or_make
from stack.settings import BUCKET, Settings
from stack.stack import Stack
from tests.endpoints.aws import Aws, running_aws
from tests.endpoints.conftest import on_sagemaker
from tests.gpu_worker.served import served
from tests.running import CHECKPOINT, PARAMETERS
from tests.sagemaker_runtime import Runtime, running_runtime, wait_for

INSTANCE_TYPES = {"local": "local.cpu", "sagemaker": "ml.g4dn.xlarge"}
USER = journey.USER
PERMISSIONS = [
    *("checkpoint:create", "checkpoint:list", "checkpoint:update"),
    *("sagemaker_endpoint:create", "sagemaker_endpoint:list", "sagemaker_endpoint:delete"),
    *("inference:create", "inference:list"),
]


@dataclass
class Platform:
    """A running stack with both backends, an artist, and what stands for AWS."""

    artist: Client
    aws: Aws
    runtime: Runtime
    container: str

    def create(self, backend: str, kind: str = "Async") -> str:
        """The name of a new endpoint that is in service."""
        wanted = {
            "endpoint_type": kind,
            "backend": backend,
            "instance_type": INSTANCE_TYPES[backend],
            "initial_instance_count": 1,
            "autoscaling_enabled": False,
            "assign_to_roles": [f"on-{backend}"],
            "creator": USER,
        }
        name = str(self.artist.call("POST", "/endpoints", wanted)["endpoint_name"])
        journey.wait_in_service(self.artist, name)
        for sagemaker_name in self.aws.names()["endpoints"]:
            if sagemaker_name not in self.runtime.endpoints:
                bucket = BUCKET if "-async-" in sagemaker_name else None
                self.runtime.add(sagemaker_name, [self.container], bucket)
        return name

    def names(self) -> list[str]:
        return [each["endpoint_name"] for each in self.artist.call("GET", "/endpoints")["endpoints"]]

    def start(self, endpoint: str, kind: str = "Async", **changes: Any) -> dict[str, Any]:
        """What the start of a job answers."""
        wanted = {
            "user_id": USER,
            "inference_type": kind,
            "task_type": "txt2img",
            "models": {"Stable-diffusion": [CHECKPOINT.name]},
            "sagemaker_endpoint_name": endpoint,
        }
        job = self.artist.call("POST", "/inferences", wanted)["inference"]
        put(job["api_params_s3_upload_url"], json.dumps(PARAMETERS | changes).encode())
        return dict(self.artist.call("PUT", f"/inferences/{job['id']}/start"))

    def job(self, job_id: str) -> dict[str, Any]:
        return dict(self.artist.call("GET", f"/inferences/{job_id}"))

    def finished(self, job_id: str) -> dict[str, Any]:
        """The job when its life is over, whatever its end."""
        wait_for(lambda: self.job(job_id)["status"] != "inprogress", 120)
        return self.job(job_id)


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    folder = tmp_path_factory.mktemp("both")
    with running_aws() as aws, running_runtime() as runtime, served(folder) as container:
        variables = on_sagemaker(aws) | {"SAGEMAKER_RUNTIME_URL": runtime.url}
        settings = Settings.on_free_ports(1, **variables)
        with Stack(folder / "stack", settings) as stack:
            creds, secrets = stack.creds(), load_or_make(folder / "stack")
            runtime.connect(
                endpoint_url=creds.s3_url,
                aws_access_key_id=secrets.s3_access_key,
                aws_secret_access_key=secrets.s3_secret_key,
                region_name="us-east-1",
            )
            administrator = Client(creds.url, creds.api_key)
            administrator.sign_in(creds.username, creds.password)
            roles = [f"on-{backend}" for backend in INSTANCE_TYPES]
            for role in roles:
                wanted = {"role_name": role, "permissions": PERMISSIONS, "creator": creds.username}
                administrator.call("POST", "/roles", wanted)
            user = {"username": USER, "password": "a long password 1", "roles": roles, "creator": "admin"}
            administrator.call("POST", "/users", user)
            artist = Client(creds.url, creds.api_key)
            artist.sign_in(USER, "a long password 1")
            journey.upload_checkpoint(artist, CHECKPOINT, CHECKPOINT.name)
            yield Platform(artist, aws, runtime, container.url)


@pytest.fixture(params=list(INSTANCE_TYPES))
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def endpoints(platform: Platform) -> dict[tuple[str, str], str]:
    """An endpoint of each type on each backend."""
    kinds = [(backend, kind) for backend in INSTANCE_TYPES for kind in ("Async", "Real-time")]
    return {(backend, kind): platform.create(backend, kind) for backend, kind in kinds}


Endpoints = dict[tuple[str, str], str]


def picture_of(job: dict[str, Any]) -> np.ndarray:
    content = requests.get(job["img_presigned_urls"][0], timeout=10).content
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def test_an_async_job_gives_the_picture_that_its_prompt_says(
    platform: Platform, endpoints: Endpoints, backend: str
) -> None:
    started = platform.start(endpoints[backend, "Async"])["inference"]
    assert (started["status"], started["endpoint_name"]) == ("inprogress", endpoints[backend, "Async"])
    job = platform.finished(started["inference_id"])
    assert (job["status"], job["attempts"], job["image_names"]) == ("succeed", 1, ["image_0.png"]), job[
        "error"
    ]
    shown = read_picture(picture_of(job))
    assert (shown.foreground, shown.shape, shown.background) == ("red", "circle", "white")
    assert job["sagemakerRaw"]["image_names"] == job["image_names"]
    assert job["params"]["sagemaker_inference_endpoint_name"] == endpoints[backend, "Async"]
    assert job["params"]["output_path"].startswith(f"s3://{BUCKET}/sagemaker_output/{job['InferenceJobId']}")
    times = [job["timeline"][name] for name in ("queued", "claimed", "first_step", "last_step", "fetchable")]
    assert times == sorted(times)


def test_both_backends_make_the_same_picture(platform: Platform, endpoints: Endpoints) -> None:
    first, second = (
        picture_of(
            platform.finished(platform.start(endpoints[backend, "Async"])["inference"]["inference_id"])
        )
        for backend in INSTANCE_TYPES
    )
    assert np.abs(first.astype(int) - second.astype(int)).max() <= 1


def test_a_real_time_start_answers_with_the_finished_job(
    platform: Platform, endpoints: Endpoints, backend: str
) -> None:
    job = platform.start(endpoints[backend, "Real-time"], "Real-time", steps=4)
    assert (job["status"], job["image_names"]) == ("succeed", ["image_0.png"]), job["error"]
    assert picture_of(job).shape == (64, 64, 3)


def test_a_request_that_cannot_be_honoured_fails_with_the_same_sentence(
    platform: Platform, endpoints: Endpoints, backend: str
) -> None:
    started = platform.start(endpoints[backend, "Async"], cfg_scale="much")["inference"]
    job = platform.finished(started["inference_id"])
    assert (job["status"], job["attempts"]) == ("failed", 1)
    assert job["error"] == "cfg_scale must be a number from 1 to 100, not 'much'"


def test_a_job_is_cancelled_wherever_it_is(platform: Platform, endpoints: Endpoints, backend: str) -> None:
    started = platform.start(endpoints[backend, "Async"], steps=150)["inference"]
    job_id = started["inference_id"]
    wait_for(lambda: platform.job(job_id)["timeline"]["claimed"])
    platform.artist.call("PUT", f"/inferences/{job_id}/cancel")
    assert platform.job(job_id)["status"] == "cancelled"
    after = platform.start(endpoints[backend, "Async"], steps=2)["inference"]["inference_id"]
    assert platform.finished(after)["status"] == "succeed"
    assert platform.job(job_id)["status"] == "cancelled"


def test_an_endpoint_that_is_deleted_while_busy_loses_no_job(
    platform: Platform, endpoints: Endpoints, backend: str
) -> None:
    """The job that runs ends well; then the endpoint goes, with all that it had at AWS."""
    name = endpoints.pop((backend, "Async"))
    platform.runtime.faults.gate.clear()
    job_id = platform.start(name, steps=100)["inference"]["inference_id"]
    wait_for(lambda: platform.job(job_id)["timeline"]["claimed"])
    platform.artist.call("DELETE", "/endpoints", {"endpoint_name_list": [name], "username": USER})
    platform.runtime.faults.gate.set()
    job = platform.finished(job_id)
    assert job["status"] == "succeed", job["error"]
    wait_for(lambda: name not in platform.names(), 90)
    if backend == "sagemaker":
        wait_for(lambda: not [each for each in platform.aws.names()["endpoints"] if "-async-" in each])
    with pytest.raises(DemoFailed, match=r"no available Async endpoints|is not available"):
        platform.start(name)
