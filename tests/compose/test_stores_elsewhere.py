"""The stack on stores that it does not run itself, as docs/install.md says: MongoDB, Redis and S3 by URL."""

import json
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.compose.load import until
from tests.compose.project import ROOT, Project, bridge_address, docker
from tests.gateway.running import free_port

NAME = "sdfleet-elsewhere"
PASSWORD = secrets.token_hex(16)
SWITCHED_OFF = {"LOCAL_MONGODB": "0", "LOCAL_REDIS": "0", "LOCAL_S3": "0", "INSIDE_ONLY": "false"}


@pytest.fixture
def stores(project: Project) -> Iterator[dict[str, str]]:
    """Three containers outside of every compose project; what a `.env` says of them."""
    image = {
        name: service["image"]
        for name, service in json.loads(project.compose("config", "--format", "json"))["services"].items()
    }
    at = {name: f"{bridge_address()}:{free_port()}" for name in ("mongo", "redis", "s3")}
    with ExitStack() as stack:

        def run(name: str, port: int, *words: str) -> str:
            container = docker("run", "--detach", "--publish", f"{at[name]}:{port}", *words)
            stack.callback(docker, "rm", "--force", "--volumes", container)
            return container

        mongo = run("mongo", 27017, image["mongo"], "mongod", "--replSet", "elsewhere", "--bind_ip_all")
        run("redis", 6379, image["redis"], "redis-server", "--requirepass", PASSWORD)
        run(
            *("s3", 8333, "--env", "S3_ACCESS_KEY=elsewhere", "--env", f"S3_SECRET_KEY={PASSWORD}"),
            *("--volume", f"{ROOT}/deploy/s3:/deploy:ro", "--entrypoint", "sh", image["s3"]),
            *("-c", "mkdir -p /objects; exec sh /deploy/start.sh"),
        )
        members = json.dumps({"_id": "elsewhere", "members": [{"_id": 0, "host": at["mongo"]}]})
        begin = f"try {{ rs.initiate({members}) }} catch (e) {{}}; print(db.hello().isWritablePrimary)"
        until(lambda: answers(mongo, begin))
        yield {
            "MONGODB_URL": f"mongodb://{at['mongo']}/?replicaSet=elsewhere",
            "REDIS_URL": f"redis://:{PASSWORD}@{at['redis']}/0",
            "S3_ENDPOINT_URL": f"http://{at['s3']}",
            "S3_PUBLIC_URL": f"http://{at['s3']}",
            "S3_ACCESS_KEY": "elsewhere",
            "S3_SECRET_KEY": PASSWORD,
        }


def answers(mongo: str, script: str) -> bool:
    words = ["docker", "exec", mongo, "mongosh", "--quiet", "--norc", "--eval", script]
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout.split()[-1:] == ["true"]


def test_a_picture_is_made_on_stores_elsewhere(stores: dict[str, str], tmp_path: Path) -> None:
    project = Project.make(NAME, tmp_path, **(SWITCHED_OFF | stores))
    try:
        project.compose("up", "--detach", "--wait", "--wait-timeout", "600")
        assert not {"mongo", "redis", "s3"} & {container["Service"] for container in project.containers()}
        target = project.target
        said = project.run(
            *(sys.executable, "-m", "stack", "demo", "--url", target.url, "--api-key", target.api_key),
            *("--password", target.password, "--pictures", str(tmp_path)),
        )
        picture = Path(json.loads(said.splitlines()[-1])["picture"])
        assert picture.read_bytes().startswith(b"\x89PNG")
    finally:
        project.compose("--profile", "*", "down", "--volumes", "--remove-orphans")
