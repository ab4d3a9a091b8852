"""An endpoint that follows its line: it wakes from zero, grows, goes back to zero, and loses no job."""

import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stack.demo import journey
from stack.demo.client import Client, Target
from stack.failures import StackError
from stack.settings import ROOT, Settings
from stack.stack import Stack

CHECKPOINT = ROOT / "house" / "shapes-v1.safetensors"
COOLDOWN_SECONDS = 5
WORKERS = 2
WAKES = 3
JOBS = 20
POLL_SECONDS = 0.1
PATIENCE_SECONDS = 240.0
SCALING = {"autoscaling_enabled": True, "min_instance_number": 0, "max_instance_number": WORKERS}
SHORT = {
    "prompt": "a red circle on a white background",
    "sampler_name": "Euler",
    "steps": 20,
    "width": 64,
    "height": 64,
}
# Longer than a cool-down, so that its instance is taken away while it runs.
LONG = SHORT | {"steps": 150, "n_iter": 4}


def run() -> dict[str, Any]:
    """One autoscaling endpoint on two workers: idle at zero, one job, twenty jobs, idle again."""
    settings = Settings.on_free_ports(WORKERS, AUTOSCALING_COOLDOWN_SECONDS=str(COOLDOWN_SECONDS))
    with (
        tempfile.TemporaryDirectory(prefix="sdfleet-bench-") as folder,
        Stack(Path(folder), settings) as stack,
    ):
        creds = stack.creds()
        artist = journey.create_artist(Target(creds.url, creds.api_key, creds.username, creds.password))
        journey.upload_checkpoint(artist, CHECKPOINT, CHECKPOINT.name)
        endpoint = journey.create_endpoint(artist, **SCALING)
        journey.wait_in_service(artist, endpoint)
        _warm_up(artist, endpoint)
        return _measured(artist, endpoint)


def _warm_up(client: Client, endpoint: str) -> None:
    """Every worker has the model in memory: as many jobs run at once as there are workers."""
    jobs = [_start(client, endpoint, SHORT) for _ in range(JOBS)]
    _wait(lambda: _instances(client, endpoint) == WORKERS or _all_over(client, jobs), "it did not grow")
    for job in jobs:
        _finished(client, job)


def _measured(client: Client, endpoint: str) -> dict[str, Any]:
    wakes = []
    for _ in range(WAKES):
        _wait(lambda: _asleep(client, endpoint), "it did not go back to zero")
        began = datetime.now(UTC)
        line = _finished(client, _start(client, endpoint, SHORT))["timeline"]
        wakes.append((_moment(line["claimed"]) - began).total_seconds())
    _wait(lambda: _asleep(client, endpoint), "it did not go back to zero")
    with _watched(client, endpoint) as seen:
        jobs = [_start(client, endpoint, SHORT) for _ in range(JOBS)]
        _wait(lambda: max(seen, default=0) == WORKERS or _all_over(client, jobs), "it did not grow")
        jobs += [_start(client, endpoint, LONG) for _ in range(WORKERS)]
        _wait(lambda: _all_over(client, jobs), "the jobs were not finished")
        idle_at = time.monotonic()
        _wait(lambda: _instances(client, endpoint) == 0, "it did not go back to zero")
        idle = time.monotonic() - idle_at
    states = [client.call("GET", f"/inferences/{job}") for job in jobs]
    return {
        "wake_s": round(max(wakes), 2),
        "peak_instances": max(seen),
        "cooldown_s": round(idle, 1),
        "lost": sum(state["status"] != "succeed" for state in states),
        "wakes_s": [round(wake, 2) for wake in wakes],
        "attempts": max(state["attempts"] for state in states),
        "instances_under_long_jobs": _least_before_zero(seen),
        "jobs": len(jobs),
        "workers": WORKERS,
        "configured_cooldown_s": COOLDOWN_SECONDS,
    }


def _start(client: Client, endpoint: str, parameters: dict[str, Any]) -> str:
    return journey.start_job(client, endpoint, CHECKPOINT.name, parameters | {"seed": 1})


def _finished(client: Client, job_id: str) -> dict[str, Any]:
    job: dict[str, Any] = {}
    for job in journey.follow_job(client, job_id):  # noqa: B007 - the last state is wanted
        pass
    return job


def _all_over(client: Client, jobs: list[str]) -> bool:
    over = {"succeed", "failed", "cancelled"}
    return all(client.call("GET", f"/inferences/{job}")["status"] in over for job in jobs)


def _instances(client: Client, endpoint: str) -> int:
    return int(client.call("GET", f"/endpoints/{endpoint}")["current_instance_count"])


def _asleep(client: Client, endpoint: str) -> bool:
    """Whether there is no instance, and no worker that has yet to hear of it."""
    return not client.call("GET", f"/endpoints/{endpoint}/instances")["instances"]


@contextmanager
def _watched(client: Client, endpoint: str) -> Iterator[list[int]]:
    """The numbers of instances that the endpoint has had, each time that it changed."""
    seen: list[int] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(POLL_SECONDS):
            count = _instances(client, endpoint)
            if not seen or seen[-1] != count:
                seen.append(count)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield seen
    finally:
        over.set()
        watcher.join()


def _least_before_zero(seen: list[int]) -> int:
    """How few instances there were between the peak and zero."""
    after_peak = seen[seen.index(max(seen)) :]
    return min((count for count in after_peak if count), default=0)


def _wait(condition: Any, otherwise: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise StackError(f"{otherwise} within {PATIENCE_SECONDS:.0f} s")
        time.sleep(POLL_SECONDS)


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)
