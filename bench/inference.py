"""What clients of inference jobs wait for: cancels, events, Real-time answers, lists; and workers: claims.

BENCH_JOBS, BENCH_LIST_SIZES, BENCH_LIST_ROUNDS and BENCH_CLAIMED_JOBS make it smaller or larger.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import requests

from bench import claims, job_lists
from stack.demo import journey
from stack.demo.client import Target
from stack.failures import StackError
from stack.infrastructure import infrastructure
from stack.settings import ROOT, Settings
from stack.stack import Stack

CHECKPOINT = ROOT / "house" / "shapes-v1.safetensors"
JOBS = int(os.environ.get("BENCH_JOBS", "30"))
WARM_UP = 3
STEPS, LONG_STEPS = 20, 150
PARAMETERS = {
    "prompt": "a red circle on a white background",
    "sampler_name": "Euler",
    "cfg_scale": 7,
    "steps": STEPS,
    "width": 64,
    "height": 64,
}
LONG = PARAMETERS | {"steps": LONG_STEPS, "n_iter": 16}


def run() -> dict[str, Any]:
    """Live figures from one stack with one worker, then lists of up to a million jobs."""
    settings = Settings.on_free_ports()
    with (
        tempfile.TemporaryDirectory(prefix="sdfleet-bench-") as folder,
        Stack(Path(folder), settings) as stack,
    ):
        artist = Artist(stack)
        figures = artist.realtime() | artist.events() | artist.cancels()
        figures |= claims.measure(stack, settings)
    with (
        tempfile.TemporaryDirectory(prefix="sdfleet-bench-") as folder,
        infrastructure(Path(folder)) as parts,
    ):
        figures |= job_lists.measure(parts)
    return figures | {"jobs": JOBS}


class Artist:
    """A client with an Async and a Real-time endpoint on the stack's one worker."""

    def __init__(self, stack: Stack) -> None:
        creds = stack.creds()
        target = Target(creds.url, creds.api_key, creds.username, creds.password)
        self._client, self._endpoint = journey.prepare(target, CHECKPOINT)
        self._realtime = journey.create_endpoint(self._client, endpoint_type="Real-time")
        journey.wait_in_service(self._client, self._realtime)
        self._url = creds.url
        self._headers = dict(self._client._session.headers)
        for seed in range(WARM_UP):
            self._make(seed)

    def realtime(self) -> dict[str, Any]:
        """A Real-time call with its parameters, beside the bare pipeline before and after."""
        bare = [self._bare()]
        taken = [self._make(seed) for seed in range(JOBS)]
        bare.append(self._bare())
        alone = statistics.fmean(bare)
        return {
            "realtime_ms_p50": round(statistics.median(taken), 1),
            "bare_pipeline_ms": round(alone, 1),
            "realtime_overhead_ms_p50": round(statistics.median(taken) - alone, 1),
        }

    def _make(self, seed: int) -> float:
        began = time.perf_counter()
        job = self._create(self._realtime, PARAMETERS | {"seed": seed})
        seconds = time.perf_counter() - began
        if job["status"] != "succeed":
            raise StackError(f"the Real-time job is {job['status']}: {job['error']}")
        return seconds * 1000

    def _bare(self) -> float:
        command = [sys.executable, "-m", "bench.bare_loop", str(CHECKPOINT), str(JOBS), "--steps", str(STEPS)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise StackError(f"the bare pipeline failed: {done.stderr.strip().splitlines()[-1]}")
        return float(done.stdout) * 1000 / JOBS

    def events(self) -> dict[str, Any]:
        """From a change of a job's state in the database to the client that listens: claimed, and over."""
        taken = []
        for seed in range(JOBS):
            job_id = self._async(PARAMETERS | {"seed": seed})
            heard: dict[str, datetime] = {}
            for event, data in self._listen(job_id, start=True):
                if event == "status" and data["running"]:
                    heard["claimed"] = datetime.now(UTC)
                elif event == "end":
                    heard["fetchable"] = datetime.now(UTC)
            line = self._client.call("GET", f"/inferences/{job_id}")["timeline"]
            taken += [_ms(_moment(line[name]), at) for name, at in heard.items()]
        return {
            "event_ms_p50": round(statistics.median(taken), 1),
            "event_ms_p99": round(_percentile(taken, 99), 1),
            "events": len(taken),
        }

    def cancels(self) -> dict[str, Any]:
        """From a client's cancel of a running job to the claim of the next: the worker has let go."""
        answers, free, steps = [], [], []
        for seed in range(JOBS):
            long = self._async(LONG | {"seed": seed})
            following = None
            for event, data in self._listen(long, start=True):
                if event == "progress" and data["step"] > 2 and following is None:
                    steps.append(self._step_ms(long))
                    following = self._async(PARAMETERS | {"seed": seed})
                    self._client.call("PUT", f"/inferences/{following}/start")
                    asked, began = datetime.now(UTC), time.perf_counter()
                    self._client.call("PUT", f"/inferences/{long}/cancel")
                    answers.append((time.perf_counter() - began) * 1000)
            *_, job = journey.follow_job(self._client, str(following))
            free.append(_ms(asked, _moment(job["timeline"]["claimed"])))
        return {
            "cancel_ms_p50": round(statistics.median(free), 1),
            "cancel_ms_p99": round(_percentile(free, 99), 1),
            "cancel_answer_ms_p50": round(statistics.median(answers), 1),
            "step_ms": round(statistics.median(steps), 1),
        }

    def _step_ms(self, job_id: str) -> float:
        """How long a step of the running job takes."""
        job = self._client.call("GET", f"/inferences/{job_id}")
        begun = _moment(job["timeline"]["first_step"] or job["timeline"]["claimed"])
        return _ms(begun, datetime.now(UTC)) / max(job["progress"]["step"], 1)

    def _async(self, parameters: dict[str, Any]) -> str:
        return journey.create_job(self._client, self._endpoint, CHECKPOINT.name, parameters)

    def _create(self, endpoint: str, parameters: dict[str, Any]) -> dict[str, Any]:
        body = {
            "task_type": "txt2img",
            "models": {journey.MODEL_TYPE: [CHECKPOINT.name]},
            "sagemaker_endpoint_name": endpoint,
            "payload_string": json.dumps(parameters),
        }
        made: dict[str, Any] = self._client.call("POST", "/inferences", body)
        return made

    def _listen(self, job_id: str, *, start: bool) -> Iterator[tuple[str, dict[str, Any]]]:
        """The job's events until its end; it is started once somebody listens."""
        with requests.get(
            f"{self._url}/inferences/{job_id}/events", headers=self._headers, stream=True, timeout=120
        ) as stream:
            stream.raise_for_status()
            event = ""
            for line in stream.iter_lines(chunk_size=1, decode_unicode=True):
                if line.startswith("event: "):
                    event = line.removeprefix("event: ")
                elif line.startswith("data: "):
                    yield event, json.loads(line.removeprefix("data: "))
                    if start:
                        start = False
                        self._client.call("PUT", f"/inferences/{job_id}/start")


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def _ms(begin: datetime, end: datetime) -> float:
    return (end - begin).total_seconds() * 1000


def _percentile(values: list[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]
