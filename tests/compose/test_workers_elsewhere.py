"""GPU machines that run only workers, by docker-compose.worker.yml, as docs/install.md says."""

import json
import sys
from pathlib import Path

import pytest

from tests.compose.project import Project, bridge_address
from tests.gateway.running import free_port

MAIN, OTHER = "sdfleet-main", "sdfleet-gpu-machine"


@pytest.mark.usefixtures("project")  # the images are built
def test_a_picture_is_made_on_another_machine(tmp_path: Path) -> None:
    """The containers of the two projects share no network: they meet at a published address alone."""
    address = bridge_address()
    s3, api, redis = (str(free_port()) for _ in range(3))
    ports = {"WORKERS_PORT": api, "WORKERS_REDIS_PORT": redis}
    main = Project.make(
        MAIN,
        tmp_path / "main",
        COMPOSE_PROFILES="workers",
        WORKERS_ADDRESS=address,
        PUBLISH_ADDRESS="0.0.0.0",
        S3_PORT=s3,
        S3_PUBLIC_URL=f"http://127.0.0.1:{s3}",
        S3_WORKER_URL=f"http://{address}:{s3}",
        **ports,
    )
    shared = {name: main.values[name] for name in ("WORKER_SECRET", "REDIS_PASSWORD")}
    other = Project.make(OTHER, tmp_path / "other", MAIN_ADDRESS=address, **shared, **ports)
    worker = ("--file", "docker-compose.worker.yml")
    try:
        main.compose("up", "--detach", "--wait", "--wait-timeout", "600")
        assert not main.containers("gpu_worker")
        other.compose(*worker, "up", "--detach", "--wait", "--wait-timeout", "600")
        target = main.target
        said = main.run(
            *(sys.executable, "-m", "stack", "demo", "--url", target.url, "--api-key", target.api_key),
            *("--password", target.password, "--pictures", str(tmp_path)),
        )
        picture = Path(json.loads(said.splitlines()[-1])["picture"])
        assert picture.read_bytes().startswith(b"\x89PNG")
    finally:
        other.compose(*worker, "down", "--volumes")
        main.compose("--profile", "*", "down", "--volumes", "--remove-orphans")
