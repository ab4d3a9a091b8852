"""The Celery worker of checkpoints, as it is started in production."""

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from services.checkpoints import tasks
from services.checkpoints.leases import exclusive
from services.common.queues import PERIODIC
from tests.checkpoints.conftest import Service, safetensors


@pytest.fixture()
def worker(service: Service) -> Iterator[subprocess.Popen[bytes]]:
    """`celery worker` on the service's queue; sweeps are sent by the tests."""
    command = [
        sys.executable,
        "-m",
        "celery",
        "-A",
        "services.checkpoints.tasks",
        "worker",
        "-Q",
        "checkpoints",
    ]
    more = ["--pool=solo", "--without-mingle", "--without-gossip", "--loglevel=WARNING"]
    with subprocess.Popen([*command, *more], env=os.environ | service.environ) as process:
        yield process
        process.terminate()
        process.wait(20)


def wait_until_active(service: Service, checkpoint_id: str, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while service.status(checkpoint_id) != "Active":
        assert time.monotonic() < deadline, "the checkpoint did not become Active"
        time.sleep(0.05)


def test_the_worker_verifies_what_it_is_asked_and_what_was_lost(
    service: Service, worker: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    content = safetensors()
    promise = {"sha256": hashlib.sha256(content).hexdigest()}
    asked = service.upload(content, file=promise)
    assert service.complete(asked).status_code == 202
    wait_until_active(service, asked.id)
    lost = service.upload(content, file=promise)
    with monkeypatch.context() as patch:
        patch.setattr(service.parts.uploads, "_ask_to_verify", lambda _: None)
        assert service.complete(lost).status_code == 202
    tasks.go_on.apply_async()
    wait_until_active(service, lost.id)


def test_work_that_somebody_holds_is_left_to_them(service: Service) -> None:
    checkpoint_id, parts = service.begin()["checkpoint"]["id"], service.parts
    with exclusive(parts.repository, checkpoint_id, 5) as held:
        assert held is not None
        parts.uploads.verify(checkpoint_id)
        parts.imports.run(checkpoint_id)
        parts.moves.run(checkpoint_id)


def test_every_periodic_task_of_the_queue_exists() -> None:
    asked = {task for task, (queue, _) in PERIODIC.items() if queue == "checkpoints"}
    assert asked <= set(tasks.app.tasks)
