"""The steps from an empty platform to a picture; each can be taken again on one that is no longer empty."""

import json
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from stack.demo.client import Client, DemoFailed, Target, get, put

ROLE = "demo-artists"
USER = "demo-artist"
PERMISSIONS = [
    *("checkpoint:create", "checkpoint:list", "checkpoint:update"),
    *("sagemaker_endpoint:create", "sagemaker_endpoint:list"),
    *("inference:create", "inference:list"),
    *("train:create", "train:list", "train:update", "train:delete"),
]
MODEL_TYPE = "Stable-diffusion"
ENDPOINT_TYPE = "Async"
INSTANCE_TYPES = ("local.gpu", "local.cpu")
USABLE = {"Creating", "InService", "Updating"}
PART_BYTES = 5 * 2**20  # what S3 takes at least for every part but the last
POLL_SECONDS = 0.2
STEP_SECONDS = 180


def create_artist(target: Target) -> Client:
    """As the administrator create a role and a user; the client of that user, signed in."""
    administrator = Client(target.url, target.api_key)
    administrator.sign_in(target.username, target.password)
    role = {"role_name": ROLE, "permissions": PERMISSIONS, "creator": target.username}
    administrator.call("POST", "/roles", role)
    password = secrets.token_urlsafe(15)
    user = {"username": USER, "password": password, "roles": [ROLE], "creator": target.username}
    administrator.call("POST", "/users", user)
    artist = Client(target.url, target.api_key)
    artist.sign_in(USER, password)
    return artist


def prepare(target: Target, checkpoint: Path) -> tuple[Client, str]:
    """An artist who has the checkpoint, and the name of an endpoint that is in service for them."""
    artist = create_artist(target)
    if not find_checkpoint(artist, checkpoint.name):
        upload_checkpoint(artist, checkpoint, checkpoint.name)
    endpoint = find_endpoint(artist) or create_endpoint(artist)
    wait_in_service(artist, endpoint)
    return artist, endpoint


def find_checkpoint(client: Client, name: str) -> bool:
    """Whether a checkpoint of this name is there already."""
    found = client.call("GET", "/checkpoints", types=MODEL_TYPE, status="Active")
    return any(name in checkpoint["name"] for checkpoint in found["checkpoints"])


def upload_checkpoint(client: Client, file: Path, name: str) -> int:
    """Upload a file in parts and make it Active; the number of parts."""
    parts = _parts(file)
    wanted = {
        "checkpoint_type": MODEL_TYPE,
        "filenames": [{"filename": name, "parts_number": len(parts)}],
        "params": {"message": "the house checkpoint", "creator": USER},
    }
    created = client.call("POST", "/checkpoints", wanted)
    urls = created["s3PresignUrl"][name]
    tags = [
        {"ETag": put(url, part), "PartNumber": place + 1}
        for place, (url, part) in enumerate(zip(urls, parts, strict=True))
    ]
    path = f"/checkpoints/{created['checkpoint']['id']}"
    client.call("PUT", path, {"status": "Active", "multi_parts_tags": {name: tags}})
    _until(
        lambda: client.call("GET", path),
        lambda data: _checkpoint(data)["status"] == "Active",
        "the checkpoint did not become Active",
    )
    return len(parts)


def _parts(file: Path) -> list[bytes]:
    content = file.read_bytes()
    return [content[start : start + PART_BYTES] for start in range(0, len(content), PART_BYTES)]


def _checkpoint(data: dict[str, Any]) -> dict[str, Any]:
    checkpoint: dict[str, Any] = data.get("checkpoint", data)
    return checkpoint


def find_endpoint(client: Client) -> str | None:
    """The name of the role's endpoint when it has one."""
    for endpoint in client.call("GET", "/endpoints")["endpoints"]:
        mine = ROLE in endpoint["owner_group_or_role"] and endpoint["endpoint_type"] == ENDPOINT_TYPE
        if mine and endpoint["endpoint_status"] in USABLE:
            return str(endpoint["endpoint_name"])
    return None


def create_endpoint(client: Client, **changes: Any) -> str:
    """Create the role's endpoint, as it is or with these fields, on whatever workers there are; its name."""
    wanted = {
        "endpoint_type": ENDPOINT_TYPE,
        "initial_instance_count": 1,
        "autoscaling_enabled": False,
        "assign_to_roles": [ROLE],
        "creator": USER,
    } | changes
    refused = ""
    for instance_type in INSTANCE_TYPES:
        try:
            endpoint = client.call("POST", "/endpoints", wanted | {"instance_type": instance_type})
            return str(endpoint["endpoint_name"])
        except DemoFailed as failure:
            if "ResourceLimitExceeded" not in str(failure):
                raise
            refused = str(failure)
    raise DemoFailed(f"no GPU worker has room for an endpoint: {refused}")


def wait_in_service(client: Client, name: str) -> None:
    """Wait until a worker serves the endpoint."""
    endpoint = _until(
        lambda: client.call("GET", f"/endpoints/{name}"),
        lambda data: (
            data["endpoint_status"] == "Failed"
            or (data["endpoint_status"] == "InService" and int(data["current_instance_count"]) > 0)
        ),
        f"the endpoint {name} did not come into service",
    )
    if endpoint["endpoint_status"] == "Failed":
        raise DemoFailed(f"the endpoint {name} failed: {endpoint['error']}")


def start_job(client: Client, endpoint: str, model: str, parameters: dict[str, Any]) -> str:
    """Create a job, upload its parameters and start it; its id."""
    job_id = create_job(client, endpoint, model, parameters)
    client.call("PUT", f"/inferences/{job_id}/start")
    return job_id


def create_job(client: Client, endpoint: str, model: str, parameters: dict[str, Any]) -> str:
    """Create a job and upload its parameters; its id."""
    wanted = {
        "user_id": USER,
        "inference_type": ENDPOINT_TYPE,
        "task_type": "txt2img",
        "models": {MODEL_TYPE: [model]},
        "sagemaker_endpoint_name": endpoint,
    }
    job = client.call("POST", "/inferences", wanted)["inference"]
    put(job["api_params_s3_upload_url"], json.dumps(parameters).encode())
    return str(job["id"])


def follow_job(client: Client, job_id: str) -> Iterator[dict[str, Any]]:
    """The job as it goes on, until it succeeded. Raises DemoFailed with its error when it did not."""
    deadline = time.monotonic() + STEP_SECONDS
    while time.monotonic() < deadline:
        job = client.call("GET", f"/inferences/{job_id}")
        yield job
        if job["status"] == "succeed":
            return
        if job["status"] in {"failed", "cancelled"}:
            raise DemoFailed(f"the job {job_id} {job['status']}: {job['error']}")
        time.sleep(POLL_SECONDS)
    raise DemoFailed(f"the job {job_id} was not finished after {STEP_SECONDS} s")


def download_picture(job: dict[str, Any], folder: Path) -> Path:
    """Fetch the job's first picture by its presigned URL."""
    folder.mkdir(parents=True, exist_ok=True)
    picture = folder / f"{job['InferenceJobId']}.png"
    picture.write_bytes(get(job["img_presigned_urls"][0]))
    return picture


def _until(
    ask: Callable[[], dict[str, Any]], done: Callable[[dict[str, Any]], bool], otherwise: str
) -> dict[str, Any]:
    deadline = time.monotonic() + STEP_SECONDS
    while True:
        answer = ask()
        if done(answer):
            return answer
        if time.monotonic() > deadline:
            raise DemoFailed(f"{otherwise} within {STEP_SECONDS} s; it is {json.dumps(answer)[:500]}")
        time.sleep(POLL_SECONDS)
