"""What docker-compose.yml and the Dockerfiles must say, looked at without Docker."""

import re
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.common.queues import PERIODIC, SERVICE_QUEUES
from stack.table import SERVICES

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
CONTAINERS: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILES = [ROOT / folder / "Dockerfile" for folder in ("gateway", "services", "gpu_worker")]
PINNED = re.compile(r"[a-z0-9./-]+:v?[0-9]+\.[0-9]+[A-Za-z0-9.-]*")
OWN = re.compile(r"sdfleet-[a-z-]+:\$\{SDFLEET_VERSION:-[0-9.]+\}")
SECRETS = (
    *("ADMIN_PASSWORD", "ADMIN_API_KEY", "SERVICE_SECRET", "WORKER_SECRET", "REDIS_PASSWORD"),
    *("MONGODB_ROOT_PASSWORD", "MONGODB_PASSWORD", "MONGODB_KEY", "S3_ACCESS_KEY", "S3_SECRET_KEY"),
)
LOCAL = re.compile(r"\$\{[A-Z_]+:-127\.0\.0\.1\}:")  # this machine alone, unless .env says otherwise
ONCE = {"mongo-init", "migrate", "backup"}


def test_every_service_runs_with_a_celery_worker_where_it_has_tasks() -> None:
    for service in SERVICES:
        assert CONTAINERS[service.name]["command"] == ["serve", service.name]
        assert (f"{service.name}-tasks" in CONTAINERS) == service.tasks


def test_every_queue_is_consumed() -> None:
    commands = [container.get("command") for container in CONTAINERS.values()]
    for queue in {*SERVICE_QUEUES, *(queue for queue, _ in PERIODIC.values())}:
        assert ["tasks", queue] in commands, queue
    assert ["beat"] in commands


@pytest.mark.parametrize("secret", SECRETS)
def test_no_secret_has_a_default(secret: str) -> None:
    used = re.findall(r"\$\{" + secret + r"([^}]*)\}", TEXT)
    assert used and all(rest.lstrip(":").startswith("?") for rest in used), used


def test_images_are_pinned() -> None:
    for name, container in CONTAINERS.items():
        image = container["image"]
        assert OWN.match(image) or PINNED.fullmatch(image), f"{name}: {image}"
    for dockerfile in DOCKERFILES:
        text = dockerfile.read_text()
        stages = re.findall(r"^FROM \S+ AS (\S+)", text, re.M)
        for base in re.findall(r"^FROM (\S+)", text, re.M):
            assert base in stages or base.startswith("torch-${") or PINNED.fullmatch(base), base


def test_only_the_gateway_and_s3_are_published() -> None:
    published = {name for name, container in CONTAINERS.items() if "ports" in container}
    assert {name for name in published if "profiles" not in CONTAINERS[name]} == {"gateway", "s3"}
    for name in published:
        assert all(LOCAL.match(port) for port in CONTAINERS[name]["ports"]), name


@pytest.mark.parametrize("name", CONTAINERS)
def test_every_container_is_confined_limited_and_comes_back(name: str) -> None:
    container = CONTAINERS[name]
    assert container["read_only"] is True
    assert container["cap_drop"] == ["ALL"]
    assert container["security_opt"] == ["no-new-privileges:true"]
    assert container["logging"]["options"].keys() == {"max-size", "max-file"}
    assert container["deploy"]["resources"]["limits"].keys() == {"memory", "pids"}
    assert container["restart"] == ("no" if name in ONCE else "unless-stopped")


def test_whoever_unpickles_has_no_network_and_no_secret() -> None:
    converter = CONTAINERS["converter"]
    assert converter["network_mode"] == "none"
    assert "environment" not in converter and "env_file" not in converter


def test_a_worker_gets_no_secret_but_its_own() -> None:
    given = yaml.safe_dump([CONTAINERS["gpu_worker"]["environment"], CONTAINERS["gpu_worker"]["env_file"]])
    assert set(SECRETS) & set(re.findall(r"[A-Z0-9_]+", given)) == {"WORKER_SECRET", "REDIS_PASSWORD"}
    assert "settings.env" not in given


def test_images_run_as_somebody_without_rights_and_say_whether_they_work() -> None:
    for dockerfile in DOCKERFILES:
        text = dockerfile.read_text()
        assert re.search(r"^USER [1-9][0-9]*:[1-9][0-9]*$", text, re.M), dockerfile
        assert re.search(r"^HEALTHCHECK ", text, re.M), dockerfile


def test_secrets_are_made_once_readable_by_their_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    command = ["sh", str(ROOT / "deploy" / "secrets.sh"), str(file)]
    subprocess.run(command, check=True, capture_output=True)
    first = file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    values = dict(line.split("=", 1) for line in first.splitlines() if re.match(r"[A-Z]", line))
    made = [values[secret] for secret in SECRETS]
    assert all(len(value) >= 20 for value in made) and len(set(made)) == len(made)

    again = subprocess.run(command, check=False, capture_output=True, text=True)
    assert again.returncode == 1 and "there already" in again.stderr
    assert file.read_text() == first


def test_a_worker_on_another_machine_is_confined_as_those_here_are() -> None:
    there = yaml.safe_load((ROOT / "docker-compose.worker.yml").read_text())["services"]["gpu_worker"]
    here = CONTAINERS["gpu_worker"]
    for what in ("read_only", "cap_drop", "security_opt", "restart", "image", "runtime", "volumes", "deploy"):
        assert there[what] == here[what], what
    assert set(there["environment"]) == set(here["environment"])
