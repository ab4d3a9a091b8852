"""The platform's own time per job, and its throughput beside a bare diffusers loop."""

import statistics
import subprocess
import sys
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

from stack.demo import journey
from stack.demo.client import Client, Target
from stack.failures import StackError
from stack.settings import ROOT, Settings
from stack.stack import Stack

CHECKPOINT = ROOT / "house" / "shapes-v1.safetensors"
JOBS = 100
WARM_UP = 3
PARAMETERS = {
    "prompt": "a red circle on a white background",
    "sampler_name": "Euler",
    "cfg_scale": 7,
    "steps": 20,
    "width": 64,
    "height": 64,
}


def run() -> dict[str, Any]:
    """Latency: one job at a time on an idle worker. Throughput: 100 queued jobs, each computed alone."""
    with tempfile.TemporaryDirectory(prefix="sdfleet-bench-") as folder:
        stack = Stack(Path(folder), Settings.on_free_ports())
        with stack:
            creds = stack.creds()
            target = Target(creds.url, creds.api_key, creds.username, creds.password)
            client, endpoint = journey.prepare(target, CHECKPOINT)
            for _ in range(WARM_UP):
                _finished(client, _start(client, endpoint, 0))
            latency = _latency(client, endpoint)
            # The bare loop runs before and after, because machines are noisy.
            bare = [_bare_loop(JOBS // 2)]
            throughput = _throughput(client, endpoint)
            bare.append(_bare_loop(JOBS // 2))
    alone = JOBS / sum(bare)
    return latency | {
        "jobs_per_second": round(throughput, 3),
        "bare_pictures_per_second": round(alone, 3),
        "throughput_ratio": round(throughput / alone, 3),
        "jobs": JOBS,
    }


def _start(client: Client, endpoint: str, seed: int) -> str:
    return journey.start_job(client, endpoint, CHECKPOINT.name, PARAMETERS | {"seed": seed})


def _finished(client: Client, job_id: str) -> dict[str, datetime]:
    """The job's timeline, once it has succeeded."""
    job: dict[str, Any] = {}
    for job in journey.follow_job(client, job_id):  # noqa: B007 - the last state is wanted
        pass
    return {name: datetime.fromisoformat(text) for name, text in job["timeline"].items()}


def _latency(client: Client, endpoint: str) -> dict[str, float]:
    claims, deliveries, sums = [], [], []
    for seed in range(JOBS):
        line = _finished(client, _start(client, endpoint, seed))
        claims.append(_ms(line["queued"], line["claimed"]))
        deliveries.append(_ms(line["last_step"], line["fetchable"]))
        sums.append(claims[-1] + deliveries[-1])
    return {
        "overhead_ms_p50": _percentile(sums, 50),
        "overhead_ms_p99": _percentile(sums, 99),
        "claim_ms_p50": _percentile(claims, 50),
        "claim_ms_p99": _percentile(claims, 99),
        "delivery_ms_p50": _percentile(deliveries, 50),
        "delivery_ms_p99": _percentile(deliveries, 99),
    }


def _throughput(client: Client, endpoint: str) -> float:
    """Jobs per second from the first claim to the last result, with all of them queued."""
    jobs = [PARAMETERS | {"seed": seed} for seed in range(JOBS)]
    job_ids = [journey.create_job(client, endpoint, CHECKPOINT.name, job) for job in jobs]
    for job_id in job_ids:
        client.call("PUT", f"/inferences/{job_id}/start")
    lines = [_finished(client, job_id) for job_id in job_ids]
    seconds = _ms(min(line["claimed"] for line in lines), max(line["fetchable"] for line in lines)) / 1000
    return JOBS / seconds


def _bare_loop(pictures: int) -> float:
    command = [sys.executable, "-m", "bench.bare_loop", str(CHECKPOINT), str(pictures)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise StackError(f"the bare diffusers loop failed: {done.stderr.strip().splitlines()[-1]}")
    return float(done.stdout)


def _ms(begin: datetime, end: datetime) -> float:
    return (end - begin).total_seconds() * 1000


def _percentile(values: list[float], percent: int) -> float:
    return round(statistics.quantiles(values, n=100, method="inclusive")[percent - 1], 1)
