"""``python -m services.migrate`` on the database of an earlier version."""

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from pymongo import MongoClient

from services import migrate
from services.common.settings import read_settings
from services.common.times import now
from services.inference.config import Config
from services.inference.line_repository import Line
from stack.infrastructure import Infrastructure
from stack.settings import ROOT

# As the version before priorities and SageMaker made them.
OLD_JOB = {
    "_id": "old",
    "user": "ann",
    "roles": ["artists"],
    "task_type": "txt2img",
    "inference_type": "Async",
    "endpoint": "esd-async-old",
    "endpoint_id": "e1",
    "instance_type": "local.cpu",
    "models": [{"id": "c1", "type": "Stable-diffusion", "name": "m.safetensors"}],
    "status": "queued",
    "rank": 3,
    "attempt": 0,
    "failures": [],
    "history": [],
    "seed": 1,
    "batch_key": "k",
}
OLD_INDEXES: dict[str, list[tuple[str, int]]] = {
    "in line": [("endpoint", 1), ("status", 1), ("queued_at", 1)],
    "leases": [("lease.expires_at", 1)],
    "own jobs": [("user", 1), ("created_at", -1)],
}


@pytest.fixture()
def old(environment: Callable[..., dict[str, str]], parts: Infrastructure) -> dict[str, str]:
    """The environment of a deployment whose databases an earlier version has made."""
    its_own = environment()
    prefix = its_own["MONGODB_DATABASE_PREFIX"]
    with MongoClient(parts.mongodb_url, tz_aware=True) as client:
        jobs: Any = client[f"{prefix}_inference"]["jobs"]
        jobs.insert_one(OLD_JOB | {"created_at": now(), "queued_at": now()})
        for name, keys in OLD_INDEXES.items():
            jobs.create_index(keys, name=name)
        client[f"{prefix}_endpoints"]["endpoints"].insert_one(
            {
                "_id": "e1",
                "name": "esd-async-old",
                "endpoint_type": "Async",
                "roles": ["r"],
                "status": "InService",
            }
        )
        client[f"{prefix}_users"]["sessions"].create_index("expires_at")
    return its_own


def run(its_own: dict[str, str]) -> "subprocess.Popen[str]":
    needed = {name: its_own[name] for name in ("MONGODB_URL", "MONGODB_DATABASE_PREFIX")}
    return subprocess.Popen(
        [sys.executable, "-m", "services.migrate"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"]} | needed,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_an_old_database_is_brought_up_to_this_version_by_several_at_once(
    old: dict[str, str], parts: Infrastructure
) -> None:
    running = [run(old) for _ in range(3)]
    for process in running:
        _, said = process.communicate(timeout=180)
        assert process.returncode == 0, said
    prefix = old["MONGODB_DATABASE_PREFIX"]
    with MongoClient(parts.mongodb_url, tz_aware=True) as client:
        database: Any = client[f"{prefix}_inference"]
        job = database["jobs"].find_one({"_id": "old"})
        assert (job["priority"], job["overtaken"], job["backend"], job["rank"]) == (0, 0, "local", 3)
        assert database["jobs"].index_information()["in line"]["key"][-1] == ("user", 1)
        sessions = client[f"{prefix}_users"]["sessions"].index_information()
        assert sessions["expires_at_1"]["expireAfterSeconds"] == 0
        assert client[f"{prefix}_endpoints"]["endpoints"].find_one()["backend"] == "local"
        claimed = Line(database).claim("worker-1", "esd-async-old", 30)
        assert claimed is not None
        assert claimed["_id"] == "old"


def test_it_changes_nothing_the_second_time(old: dict[str, str], parts: Infrastructure) -> None:
    for _ in range(2):
        process = run(old)
        _, said = process.communicate(timeout=180)
        assert process.returncode == 0, said
    assert "documents are changed" not in said
    assert "an index is replaced" not in said


def test_a_service_starts_on_an_old_database_without_it(
    old: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from services.inference.app import create_app

    context = create_app(read_settings(Config, old)).extensions["inference"]
    assert context.line.position(context.jobs.find("old", None)) == 1


def test_every_service_is_in_it() -> None:
    assert set(migrate.SERVICES) == {path.parent.name for path in (ROOT / "services").glob("*/app.py")}


def test_without_an_address_it_says_what_to_set() -> None:
    process = run({"MONGODB_URL": "", "MONGODB_DATABASE_PREFIX": "test"})
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "set MONGODB_URL" in said
