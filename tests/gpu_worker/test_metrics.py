"""What a worker tells Prometheus."""

from pathlib import Path
from typing import Any

import requests
from prometheus_client.parser import text_string_to_metric_families

from stack.ports import HOST, free_ports
from tests.gpu_worker.conftest import StartWorker
from tests.gpu_worker.platform import Platform

SMALL: dict[str, Any] = {"prompt": "a cat", "steps": 3, "width": 64, "height": 64, "seed": 5}


def shown(port: int) -> dict[tuple[str, ...], float]:
    text = requests.get(f"http://{HOST}:{port}/metrics", timeout=10).text
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_a_worker_counts_its_jobs_pictures_steps_and_models(
    platform: Platform, models: Path, start_worker: StartWorker
) -> None:
    [port] = free_ports(1)
    model = platform.put_file(models / "sd1.safetensors")
    with start_worker(METRICS_LISTEN=f"{HOST}:{port}"):
        platform.wait_for(lambda: bool(platform.heartbeats))
        before = shown(port)
        platform.submit("job1", [model], SMALL | {"batch_size": 2})
        platform.end_of("job1")  # or both would be made in one batch
        platform.submit("job2", [model], SMALL)
        platform.submit("job3", [model], b"no json")
        for job in ("job1", "job2", "job3"):
            platform.end_of(job)
        platform.wait_for(lambda: platform.heartbeats[-1]["state"] == "idle")
        after = shown(port)
    grown = {key: value - before.get(key, 0.0) for key, value in after.items()}
    assert grown["sdfleet_worker_jobs_total", "completed", "txt2img"] == 2
    assert grown["sdfleet_worker_jobs_total", "request", "txt2img"] == 1
    assert grown["sdfleet_worker_images_total", "txt2img"] == 3
    assert grown["sdfleet_denoising_steps_total",] == 6
    assert grown["sdfleet_denoising_step_seconds_count",] == 2
    assert grown["sdfleet_cache_lookups_total", "disk", "miss"] == 1
    assert grown["sdfleet_cache_lookups_total", "memory", "miss"] == 1
    assert grown["sdfleet_cache_lookups_total", "hit", "memory"] == 1
    assert grown["sdfleet_checkpoint_download_bytes_total",] == model["size"]
    assert grown["sdfleet_worker_phase_seconds_count", "uploaded"] == 2


def test_a_worker_whose_port_is_taken_works(
    platform: Platform, models: Path, start_worker: StartWorker
) -> None:
    model = platform.put_file(models / "sd1.safetensors")
    taken = platform.url.removeprefix("http://")
    with start_worker(METRICS_LISTEN=taken):
        platform.submit("job1", [model], SMALL)
        assert platform.end_of("job1")[0] == "complete"
