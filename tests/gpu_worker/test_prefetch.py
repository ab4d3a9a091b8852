"""Files of jobs that wait come while another one is computed."""

from pathlib import Path
from typing import Any

from tests.gpu_worker.conftest import StartWorker
from tests.gpu_worker.platform import Platform

SMALL: dict[str, Any] = {"prompt": "a cat", "steps": 3, "width": 64, "height": 64, "seed": 5}
LONG = SMALL | {"steps": 150, "batch_size": 2}


def test_the_next_jobs_file_comes_while_this_one_is_computed(
    platform: Platform, models: Path, start_worker: StartWorker
) -> None:
    one = platform.put_file(models / "sd1.safetensors")
    other = platform.put_file(models / "sd1b.safetensors")
    with start_worker(WORKER_BATCH_JOBS="1"):
        platform.submit("job1", [one], LONG)
        platform.wait_for(lambda: bool(platform.progress))
        platform.submit("job2", [other], SMALL)
        while not fetched(platform, other):
            assert "job1" not in platform.ended
        platform.end_of("job1")
        assert platform.end_of("job2")[0] == "complete"
    assert len(fetched(platform, other)) == len(fetched(platform, one))


def test_a_file_that_is_gone_keeps_no_other_away(
    platform: Platform, models: Path, start_worker: StartWorker
) -> None:
    one = platform.put_file(models / "sd1.safetensors")
    other = platform.put_file(models / "sd1b.safetensors")
    gone = one | {"id": "gone", "etag": "0", "url": f"{platform.url}/s3/models/gone"}
    with start_worker(WORKER_BATCH_JOBS="1"):
        platform.submit("job1", [one], LONG)
        platform.wait_for(lambda: bool(platform.progress))
        platform.submit("job2", [gone, other], SMALL)
        while not fetched(platform, other):
            assert "job1" not in platform.ended
        platform.end_of("job1")


def fetched(platform: Platform, model: dict[str, Any]) -> list[tuple[str, str]]:
    return [(key, wanted) for key, wanted in platform.gets if model["url"].endswith(key)]


def test_a_file_that_is_gone_harms_only_the_job_that_needs_it(
    platform: Platform, models: Path, start_worker: StartWorker
) -> None:
    one = platform.put_file(models / "sd1.safetensors")
    gone = one | {"id": "gone", "etag": "0", "url": f"{platform.url}/s3/models/gone"}
    with start_worker(WORKER_BATCH_JOBS="1"):
        platform.submit("job1", [one], LONG)
        platform.wait_for(lambda: bool(platform.progress))
        platform.submit("job2", [gone], SMALL)
        platform.submit("job3", [one], SMALL)
        ends = {job: platform.end_of(job)[0] for job in ("job1", "job2", "job3")}
    assert ends == {"job1": "complete", "job2": "fail", "job3": "complete"}
