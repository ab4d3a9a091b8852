"""Processes that are killed while an endpoint scales: what the platform says of it becomes true again."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from stack.demo import journey
from stack.demo.client import Client, Target
from stack.failures import StackError
from stack.settings import Settings
from stack.stack import Stack
from tests.running import CHECKPOINT, PARAMETERS

WORKERS = 2
SCALING = {"autoscaling_enabled": True, "min_instance_number": 0, "max_instance_number": WORKERS}
LONG = PARAMETERS | {"steps": 150, "n_iter": 8}
SHORT_JOBS, LONG_JOBS = 2, 10
CONVERGED_WITHIN_SECONDS = 30
PATIENCE_SECONDS = 180


@dataclass
class Scaling:
    """A running stack whose only endpoint scales between no instance and one for each worker."""

    stack: Stack
    artist: Client
    endpoint: str

    def kill(self, *programs: str) -> datetime:
        """End programs with all their children, as a machine that fails would; when that was."""
        for program in programs:
            os.killpg(self.stack.pid(program), signal.SIGKILL)
        return datetime.now(UTC)

    def start(self, parameters: dict[str, Any]) -> str:
        return journey.start_job(self.artist, self.endpoint, CHECKPOINT.name, parameters)

    def shown(self) -> dict[str, Any]:
        return dict(self.artist.call("GET", f"/endpoints/{self.endpoint}"))

    def instances(self) -> list[dict[str, Any]]:
        return list(self.artist.call("GET", f"/endpoints/{self.endpoint}/instances")["instances"])

    def is_scaling(self) -> bool:
        endpoint = self.shown()
        return endpoint["endpoint_status"] == "Updating" or endpoint["current_instance_count"] != "0"

    def is_true_since(self, moment: datetime) -> bool:
        """Whether as many instances as the backlog needs are shown, and each has been heard since then."""
        endpoint, instances = self.shown(), self.instances()
        heard = [datetime.fromisoformat(one["last_heartbeat"]).replace(tzinfo=UTC) for one in instances]
        return (
            endpoint["endpoint_status"] == "InService"
            and endpoint["current_instance_count"] == str(WORKERS)
            and sum(one["instances"] for one in instances) == WORKERS
            and all(one["ready"] for one in instances)
            and all(at > moment for at in heard)
        )

    def is_over(self, job_id: str) -> bool:
        return self.artist.call("GET", f"/inferences/{job_id}")["status"] in {"succeed", "failed"}


def seconds_until(condition: Callable[[], bool], patience: float, otherwise: str) -> float:
    """How long it took; while a part is down the condition does not hold."""
    began = time.monotonic()
    while True:
        try:
            if condition():
                return time.monotonic() - began
        except StackError:
            pass
        assert time.monotonic() - began < patience, f"{otherwise} within {patience} s"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def scaling(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scaling]:
    settings = Settings.on_free_ports(WORKERS, AUTOSCALING_COOLDOWN_SECONDS="2", LEASE_SECONDS="4")
    with Stack(tmp_path_factory.mktemp("scaling"), settings) as stack:
        creds = stack.creds()
        artist = journey.create_artist(Target(creds.url, creds.api_key, creds.username, creds.password))
        journey.upload_checkpoint(artist, CHECKPOINT, CHECKPOINT.name)
        endpoint = journey.create_endpoint(artist, **SCALING)
        journey.wait_in_service(artist, endpoint)
        yield Scaling(stack, artist, endpoint)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "victims", [("worker-1",), ("endpoints", "endpoints-tasks", "beat"), ("redis",)], ids=lambda v: v[0]
)
def test_what_is_shown_becomes_true_again(scaling: Scaling, victims: tuple[str, ...]) -> None:
    seconds_until(lambda: not scaling.instances(), PATIENCE_SECONDS, "the endpoint did not fall asleep")
    kept = [scaling.start(PARAMETERS) for _ in range(SHORT_JOBS)]
    filling = [scaling.start(LONG) for _ in range(LONG_JOBS)]
    seconds_until(scaling.is_scaling, PATIENCE_SECONDS, "the endpoint did not wake")
    moment = scaling.kill(*victims)
    converged = seconds_until(
        lambda: scaling.is_true_since(moment), CONVERGED_WITHIN_SECONDS, f"no truth after {victims[0]}"
    )
    print(f"\n{' + '.join(victims)} killed while scaling: true again after {converged:.1f} s")
    for job in filling:
        scaling.artist.call("PUT", f"/inferences/{job}/cancel")
    seconds_until(lambda: all(map(scaling.is_over, kept)), PATIENCE_SECONDS, "jobs were not finished")
    states = [scaling.artist.call("GET", f"/inferences/{job}") for job in kept]
    assert [state["status"] for state in states] == ["succeed"] * SHORT_JOBS, states
    asleep = seconds_until(lambda: not scaling.instances(), PATIENCE_SECONDS, "it did not go back to zero")
    print(f"back to zero after {asleep:.1f} s")
