"""The loop, with a real engine on tiny models and a fake of our own services."""

import io
import json
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from gpu_worker import infotext
from tests.gpu_worker.conftest import StartWorker
from tests.gpu_worker.platform import Platform

SMALL: dict[str, Any] = {"prompt": "a cat", "steps": 3, "width": 64, "height": 64, "seed": 5}


def picture(platform: Platform, job_id: str, number: int = 0) -> Image.Image:
    return Image.open(io.BytesIO(platform.objects[f"out/{job_id}/image_{number}.png"]))


def test_a_job_ends_with_pictures_that_tell_how_they_were_made(
    platform: Platform, models: Path, start_worker: StartWorker
) -> None:
    model = platform.put_file(models / "sd1.safetensors")
    with start_worker():
        platform.submit("job1", [model], SMALL | {"batch_size": 2, "n_iter": 2, "sampler_name": "Euler a"})
        action, body = platform.end_of("job1")
    assert action == "complete"
    assert body["images"] == [f"image_{n}.png" for n in range(4)]
    last = picture(platform, "job1", 3)
    fields = infotext.parse(last.text["parameters"])
    assert last.size == (64, 64)
    assert fields["Seed"] == "8"
    assert fields["Model"] == "sd1"
    document = json.loads(platform.objects["out/job1/job1_param.json"])
    assert document["info"]["all_seeds"] == [5, 6, 7, 8]
    assert document["images"] == body["images"]
    assert "request-job1" in platform.request_ids


def test_first_and_last_step_are_told_with_the_workers_time(
    platform: Platform, models: Path, start_worker: StartWorker
) -> None:
    model = platform.put_file(models / "sd1.safetensors")
    with start_worker():
        platform.submit("job1", [model], SMALL | {"n_iter": 2})
        _, body = platform.end_of("job1")
    events = {report["event"]: report for report in platform.progress if report["event"]}
    assert events["first_step"]["step"] == 1
    last = events["last_step"]
    assert (last["step"], last["image"], last["images"]) == (3, 1, 2)
    assert body["timings"]["first_step_at"] == events["first_step"]["at"]
    assert events["first_step"]["at"] <= events["first_step"]["heard_at"]


def test_the_worker_says_what_it_has_loaded_and_when_it_is_busy(
    platform: Platform, models: Path, start_worker: StartWorker
) -> None:
    model = platform.put_file(models / "sd1.safetensors")
    with start_worker():
        platform.submit("job1", [model], SMALL | {"steps": 40})
        platform.end_of("job1")
        platform.wait_for(lambda: platform.heartbeats[-1]["state"] == "idle")
    assert any(beat["running"] == ["job1"] and beat["state"] == "busy" for beat in platform.heartbeats)
    assert platform.heartbeats[-1]["loaded"] == ["sd1.safetensors"]
    assert platform.heartbeats[-1]["state"] == "stopping"


def test_a_cancelled_job_stops_within_a_step_of_the_answer(
    platform: Platform, models: Path, start_worker: StartWorker
) -> None:
    model = platform.put_file(models / "sd1.safetensors")
    with start_worker() as worker:
        platform.submit("job1", [model], SMALL | {"steps": 150, "n_iter": 30})
        platform.wait_for(lambda: any(report["step"] > 1 for report in platform.progress))
        platform.cancelled.add("job1")
        asked = time.monotonic()
        worker.loop.cancel("job1")
        platform.wait_for(lambda: platform.heartbeats[-1]["state"] == "idle")
        assert time.monotonic() - asked < 1.0
        platform.submit("job2", [model], SMALL)
        assert platform.end_of("job2")[0] == "complete"
    assert "job1" not in platform.ended


def test_work_whose_lease_went_to_another_is_dropped_silently(
    platform: Platform, models: Path, start_worker: StartWorker
) -> None:
    model = platform.put_file(models / "sd1.safetensors")
    with start_worker():
        platform.submit("job1", [model], SMALL | {"steps": 150, "n_iter": 30})
        platform.wait_for(lambda: bool(platform.progress))
        platform.fenced.add("job1")
        platform.submit("job2", [model], SMALL)
        assert platform.end_of("job2")[0] == "complete"
    assert "job1" not in platform.ended
    assert not any(key.startswith("out/job1") for key in platform.objects)


def test_a_stopped_worker_finishes_a_short_job(
    platform: Platform, models: Path, start_worker: StartWorker
) -> None:
    model = platform.put_file(models / "sd1.safetensors")
    with start_worker() as worker:
        platform.submit("job1", [model], SMALL | {"steps": 60})
        platform.wait_for(lambda: bool(platform.progress))
        worker.stop()
        platform.submit("job2", [model], SMALL)
        assert platform.end_of("job1")[0] == "complete"
    assert "job2" not in platform.claimed


def test_a_stopped_worker_gives_a_long_job_back(
    platform: Platform, models: Path, start_worker: StartWorker
) -> None:
    model = platform.put_file(models / "sd1.safetensors")
    with start_worker(WORKER_GRACE_SECONDS="0.3") as worker:
        platform.submit("job1", [model], SMALL | {"steps": 150, "n_iter": 30})
        platform.wait_for(lambda: bool(platform.progress))
        worker.stop()
        assert platform.end_of("job1")[0] == "release"


@pytest.mark.parametrize("call", ["claim", "progress", "uploads", "complete", "PUT", "GET", "heartbeat"])
def test_a_service_that_is_away_for_a_moment_costs_no_job(
    platform: Platform, models: Path, start_worker: StartWorker, call: str
) -> None:
    model = platform.put_file(models / "sd1.safetensors")
    with start_worker():
        platform.broken[call] = 2
        platform.submit("job1", [model], SMALL)
        assert platform.end_of("job1")[0] == "complete"
    assert picture(platform, "job1").size == (64, 64)


def test_the_next_job_is_computed_while_the_last_one_is_stored(
    platform: Platform, models: Path, start_worker: StartWorker
) -> None:
    model = platform.put_file(models / "sd1.safetensors")
    with start_worker():
        platform.submit("warm", [model], SMALL)
        platform.end_of("warm")
        platform.broken["complete"] = 3
        platform.submit("job1", [model], SMALL)
        platform.submit("job2", [model], SMALL)
        platform.end_of("job1")
        platform.end_of("job2")
    assert platform.claimed["job2"] < platform.ended["job1"][2]


def test_the_same_seed_makes_the_same_picture_alone_and_in_a_batch(
    platform: Platform, models: Path, start_worker: StartWorker
) -> None:
    model = platform.put_file(models / "sd1.safetensors")
    with start_worker():
        platform.submit("alone", [model], SMALL | {"seed": 6})
        platform.submit("again", [model], SMALL | {"seed": 6})
        platform.submit("batch", [model], SMALL | {"seed": 5, "batch_size": 3})
        for job_id in ("alone", "again", "batch"):
            assert platform.end_of(job_id)[0] == "complete"
    alone = picture(platform, "alone")
    assert alone.tobytes() == picture(platform, "again").tobytes()
    pairs = zip(alone.tobytes(), picture(platform, "batch", 1).tobytes(), strict=True)
    assert max(abs(a - b) for a, b in pairs) <= 1
    assert alone.tobytes() != picture(platform, "batch", 0).tobytes()


def test_an_unknown_task_fails_with_a_sentence(platform: Platform, start_worker: StartWorker) -> None:
    with start_worker():
        platform.submit("job1", [], SMALL, task="txt2video")
        action, body = platform.end_of("job1")
    assert (action, body["kind"]) == ("fail", "request")
    assert "txt2video" in body["message"]
    assert "txt2img" in body["message"]


def test_jobs_that_wait_are_computed_together_and_end_each_by_itself(
    platform: Platform, models: Path, start_worker: StartWorker
) -> None:
    """Eight wait: one is cancelled, one asks for what there is not, one is of another size or task."""
    model = platform.put_file(models / "sd1.safetensors")
    body = SMALL | {"steps": 40, "n_iter": 2}
    with start_worker() as worker:
        platform.broken["claim"] = 1
        for number in range(4):
            platform.submit(f"job{number}", [model], body | {"seed": number})
        platform.submit("cancelled", [model], body)
        platform.submit("bad", [model], body | {"sampler_name": "Nope"})
        platform.submit("other", [model], SMALL | {"width": 72})
        platform.submit("upscaled", [], {"image": "x"}, task="extra-single-image")
        platform.wait_for(lambda: any(r["id"] == "cancelled" and r["step"] > 1 for r in platform.progress))
        platform.cancelled.add("cancelled")
        worker.loop.cancel("cancelled")
        ends = {name: platform.end_of(name, 60) for name in ("job0", "job1", "job2", "job3", "other")}
        assert {action for action, _ in ends.values()} == {"complete"}
        for name, words in (("bad", "this worker has"), ("upscaled", "image is")):
            action, said = platform.end_of(name)
            assert (action, said["kind"]) == ("fail", "request")
            assert words in said["message"]
    assert "cancelled" not in platform.ended
    # Who waits for a place renews its lease meanwhile.
    waited = [report for report in platform.progress if report["id"] == "other" and report["step"] == 0]
    assert waited
    assert picture(platform, "other").size == (72, 64)


def test_a_batch_is_published_whole(platform: Platform, models: Path, start_worker: StartWorker) -> None:
    model = platform.put_file(models / "sd1.safetensors")
    with start_worker():
        platform.broken["claim"] = 1
        for number in range(8):
            platform.submit(f"job{number}", [model], SMALL | {"seed": number})
        ends = [platform.end_of(f"job{number}") for number in range(8)]
    assert {action for action, _ in ends} == {"complete"}
    assert len({picture(platform, f"job{number}").tobytes() for number in range(8)}) == 8
