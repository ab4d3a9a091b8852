"""kill -9 of the background work between any two of its steps: no job is lost, none has two results."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from stack.infrastructure import die_with_parent
from stack.settings import ROOT
from tests.inference.sagemaker.conftest import PARAMETERS, SageMakerService
from tests.inference.sagemaker.dying import CALLS
from tests.sagemaker_runtime import wait_for

SUBMITTING = ["add", "write_input", "invoke_async", "placed", "renew"]
PICKING_UP = ["write_output", "complete", "delete_input", "remove"]
WHENS = ("before", "after")


def killed(variables: dict[str, str], *arguments: str) -> None:
    """Run the task until it is killed."""
    command = [sys.executable, "-m", "tests.inference.sagemaker.dying", *arguments]
    ended = subprocess.run(
        command, env=os.environ | variables, cwd=ROOT, capture_output=True, timeout=120, check=False
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()[-500:]


def time_passes(service: SageMakerService, job_id: str) -> None:
    """The dead process's turn is over, and so is its lease unless it had the time to prolong it."""
    service.context.database["sagemaker_lines"].delete_many({})
    job = service.record(job_id)
    if job["status"] == "running" and "output_location" not in job:
        service.expire_lease(job_id)
        service.context.running.requeue_expired()


def assert_one_result(service: SageMakerService, job_id: str) -> None:
    job = service.finished(job_id)
    service.answered()
    for moments in ((), ("until",)):
        service.pass_time(job_id, *moments)
        service.pick_up()
    number = job["attempts"]
    assert job["status"] == "succeed", job["error"]
    assert service.objects(job_id) == [
        f"out/{job_id}/result/attempt-{number}/{job_id}_param.json",
        f"out/{job_id}/result/attempt-{number}/image_0.png",
        f"sagemaker_output/{job_id}-{number}.out",
        f"sagemaker_output/{job_id}.out",
        *service.parameters(job_id),
    ]
    assert service.invocations.count_documents({"job_id": job_id}) == 0
    history = [entry["status"] for entry in service.record(job_id)["history"]]
    assert history.count("succeed") == 1


@pytest.mark.parametrize("when", WHENS)
@pytest.mark.parametrize("call", SUBMITTING)
def test_a_submission_that_is_killed_is_made_again(
    service: SageMakerService, variables: dict[str, str], call: str, when: str
) -> None:
    job_id = service.started(PARAMETERS)
    killed(variables, "submit", call, when)
    time_passes(service, job_id)
    assert_one_result(service, job_id)


@pytest.mark.parametrize("when", WHENS)
@pytest.mark.parametrize("call", PICKING_UP)
def test_a_pick_up_that_is_killed_goes_on(
    service: SageMakerService, variables: dict[str, str], call: str, when: str
) -> None:
    job_id = service.started(PARAMETERS)
    service.submit()
    service.answered()
    killed(variables, "pick_up", call, when)
    time_passes(service, job_id)
    assert_one_result(service, job_id)
    assert service.shown(job_id)["attempts"] == 1


@pytest.mark.parametrize("call", ["fail", "delete_attempt"])
def test_a_failure_whose_pick_up_is_killed_is_picked_up(
    service: SageMakerService, variables: dict[str, str], call: str
) -> None:
    job_id = service.started('{"prompt": "a", "cfg_scale": "much"}')
    service.submit()
    service.answered()
    killed(variables, "pick_up", call, "before")
    time_passes(service, job_id)
    assert service.finished(job_id)["error"] == "cfg_scale must be a number from 1 to 100, not 'much'"
    service.pass_time(job_id)
    service.pick_up()
    assert service.objects(job_id) == service.parameters(job_id)


def test_every_step_is_killed_somewhere() -> None:
    assert {*SUBMITTING, *PICKING_UP, "fail", "delete_attempt"} == set(CALLS)


class Background:
    """Celery's worker and beat as they are started in production."""

    def __init__(self, variables: dict[str, str]) -> None:
        self._variables = variables
        self._running = {name: self._start(name) for name in COMMANDS}

    def _start(self, name: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", *COMMANDS[name], "--loglevel=ERROR"],
            env=os.environ | self._variables,
            cwd=ROOT,
            start_new_session=True,  # the pool's children are killed with it
            preexec_fn=die_with_parent,
        )

    def kill(self, name: str) -> None:
        if self._running[name].poll() is None:
            os.killpg(self._running[name].pid, signal.SIGKILL)
            self._running[name].wait()

    def restart(self, name: str) -> None:
        self.kill(name)
        self._running[name] = self._start(name)

    def end(self) -> None:
        for name in COMMANDS:
            self.kill(name)


COMMANDS = {
    "worker": ["services.inference.tasks", "worker", "-Q", "inference", "--concurrency", "2"],
    "beat": ["services.common.beat", "beat", "-S", "celery.beat:Scheduler", "--pidfile="],
}


@pytest.fixture()
def background(variables: dict[str, str]) -> Iterator[Background]:
    running = Background(variables | {"LEASE_SECONDS": "5"})
    yield running
    running.end()


def test_jobs_outlive_their_background_work(service: SageMakerService, background: Background) -> None:
    """Eight jobs; Celery's worker is killed four times while they are submitted and picked up."""
    ids = [service.started(PARAMETERS) for _ in range(8)]
    for number in range(1, 5):
        wait_for(lambda least=number: len(service.runtime.invoked) >= least, 90)
        time.sleep(0.05 * number)  # somewhere else each time
        background.restart("worker")
    wait_for(lambda: all(service.shown(job_id)["status"] != "inprogress" for job_id in ids), 180)
    background.end()
    for job_id in ids:
        time_passes(service, job_id)
        assert_one_result(service, job_id)
