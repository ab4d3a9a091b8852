"""The background work, run by a real Celery worker from real Redis."""

import os
import subprocess
import sys

from celery import Celery

from services.common.queues import PERIODIC
from services.endpoints import tasks
from tests.endpoints.conftest import Others, StartService, wait_until


def test_beat_asks_for_tasks_that_exist() -> None:
    asked = [name for name, (queue, _) in PERIODIC.items() if queue == "endpoints"]
    assert asked
    assert set(asked) <= set(tasks.app.tasks)


def test_the_worker_process_finishes_what_a_request_could_not(
    start_service: StartService, others: Others
) -> None:
    service = start_service(ENDPOINT_CAPACITY="local.cpu=1")
    others.inference_is_down()
    name = service.created()["endpoint_name"]
    service.delete(name)
    assert service.get(name)["endpoint_status"] == "Deleting"
    others.inference_answers()
    command = [sys.executable, "-m", "celery", "-A", "services.endpoints.tasks", "worker", "-Q", "endpoints"]
    process = subprocess.Popen(
        [*command, "--pool=solo"],
        env=os.environ | service.environment,
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    try:
        with Celery(broker=service.environment["REDIS_URL"]) as beat:
            beat.send_task("endpoints.reconcile", queue="endpoints")
        wait_until(lambda: service.listed() == [], seconds=30)
    finally:
        process.terminate()
        process.wait(timeout=15)
