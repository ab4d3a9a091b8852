"""From a sign-in to a picture, through the gateway, with the real worker."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from PIL import Image

from house.judge import read_picture
from stack.demo import journey
from stack.demo.client import DemoFailed
from tests.running import CHECKPOINT, PARAMETERS, PROMPT, Running, safetensors_file


def finished(running: Running, job_id: str) -> dict[str, Any]:
    """The job when its life is over, whatever its end."""
    try:
        for _ in journey.follow_job(running.artist, job_id):
            pass
    except DemoFailed:
        pass
    return running.job(job_id)


def picture_at(url: str) -> Image.Image:
    return Image.open(io.BytesIO(requests.get(url, timeout=10).content))


def test_a_job_gives_the_picture_that_its_prompt_says(running: Running) -> None:
    job = finished(running, running.start(PARAMETERS))
    assert job["status"] == "succeed", job["error"]
    assert job["image_names"] == ["image_0.png"]
    picture = picture_at(job["img_presigned_urls"][0])
    shown = read_picture(np.asarray(picture.convert("RGB")))
    assert (shown.foreground, shown.shape, shown.background) == ("red", "circle", "white")
    infotext = picture.info["parameters"]
    assert infotext.startswith(PROMPT)
    assert "Steps: 20" in infotext
    assert "Seed: 7" in infotext
    result = requests.get(job["output_presigned_urls"][0], timeout=10).json()
    assert result["info"]["all_seeds"] == [7]
    line = [
        job["timeline"][name]
        for name in ("created", "queued", "claimed", "first_step", "last_step", "fetchable")
    ]
    assert line == sorted(line)
    assert job["progress"]["step"] == job["progress"]["steps"]


def test_the_same_seed_gives_the_same_picture(running: Running) -> None:
    pictures = [
        np.asarray(picture_at(finished(running, running.start(PARAMETERS))["img_presigned_urls"][0]))
        for _ in range(2)
    ]
    assert (pictures[0] == pictures[1]).all()


def test_batches_make_all_their_pictures(running: Running) -> None:
    job = finished(running, running.start(PARAMETERS | {"batch_size": 2, "n_iter": 2, "steps": 4}))
    assert job["image_names"] == [f"image_{number}.png" for number in range(4)]
    seeds = [
        picture_at(url).info["parameters"].split("Seed: ")[1].split(",")[0]
        for url in job["img_presigned_urls"]
    ]
    assert seeds == ["7", "8", "9", "10"]


def test_every_route_answers_under_prod_too(running: Running) -> None:
    for path in ("/ping", "/prod/ping"):
        answer = running.ask("GET", path, **{"x-api-key": running.target.api_key})
        assert (answer.status_code, answer.json()["message"]) == (200, "pong")
    assert running.ask("GET", "/prod/inferences", **running.signed_in()).status_code == 200


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"width": 1e9}, "width"),
        ({"batch_size": 1e6}, "batch_size"),
        ({"steps": "many"}, "steps"),
    ],
)
def test_absurd_parameters_are_refused_at_the_start(
    running: Running, changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(DemoFailed, match=f"400: {sentence}"):
        running.start(PARAMETERS | changes)


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"sampler_name": "Magic"}, "Magic"),
        ({"prompt": 7}, "prompt"),
        ({"cfg_scale": 1e300}, "cfg_scale"),
        ({"init_images": ["x"]}, "init_images"),
    ],
)
def test_what_the_worker_cannot_honour_fails_the_job_and_says_why(
    running: Running, changes: dict[str, Any], part: str
) -> None:
    job = finished(running, running.start(PARAMETERS | changes))
    assert job["status"] == "failed"
    assert part in job["error"]
    assert job["attempts"] == 1


BROKEN = {
    "truncated.safetensors": CHECKPOINT.read_bytes()[:100_000] if CHECKPOINT.exists() else b"",
    "no-safetensors.safetensors": b"This is a letter." * 100,
    "huge-header.safetensors": b"\xff" * 7 + b"\x7f" + b"{}",
    "lying.safetensors": safetensors_file(
        {"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 10**12]}}, 16
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_never_becomes_active(running: Running, tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.write_bytes(BROKEN[name])
    with pytest.raises(DemoFailed, match=f"400: .*{name}"):
        journey.upload_checkpoint(running.artist, file, name)
    with pytest.raises(DemoFailed, match="is not found"):
        running.start(PARAMETERS, model=name)


def test_a_file_that_is_no_checkpoint_fails_the_job_and_the_next_job_succeeds(
    running: Running, tmp_path: Path
) -> None:
    name = "nothing-in-it.safetensors"
    file = tmp_path / name
    file.write_bytes(safetensors_file({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}, 16))
    journey.upload_checkpoint(running.artist, file, name)
    worker = running.stack.pid("worker-1")
    failed = finished(running, running.start(PARAMETERS, model=name))
    assert failed["status"] == "failed"
    assert name in failed["error"]
    assert finished(running, running.start(PARAMETERS | {"steps": 2}))["status"] == "succeed"
    assert running.stack.pid("worker-1") == worker


def test_a_job_that_runs_is_stopped_by_cancel(running: Running) -> None:
    job_id = running.start(PARAMETERS | {"steps": 150, "n_iter": 16})
    for job in journey.follow_job(running.artist, job_id):
        if job["progress"] and job["progress"]["step"] > 1:
            break
    running.artist.call("PUT", f"/inferences/{job_id}/cancel")
    assert finished(running, running.start(PARAMETERS | {"steps": 2}))["status"] == "succeed"
    assert running.job(job_id)["status"] == "cancelled"


def test_a_real_time_job_answers_with_its_picture(running: Running) -> None:
    administrator = journey.Client(running.target.url, running.target.api_key)
    administrator.sign_in(running.target.username, running.target.password)
    wanted = {
        "endpoint_type": "Real-time",
        "instance_type": "local.cpu",
        "initial_instance_count": "1",
        "autoscaling_enabled": False,
        "assign_to_roles": [journey.ROLE],
        "creator": running.target.username,
    }
    endpoint = administrator.call("POST", "/endpoints", wanted)["endpoint_name"]
    journey.wait_in_service(administrator, endpoint)
    body = {
        "task_type": "txt2img",
        "inference_type": "Real-time",
        "models": {"Stable-diffusion": [CHECKPOINT.name]},
        "payload_string": json.dumps(PARAMETERS),
    }
    answer = running.ask("POST", "/inferences", body, **running.signed_in())
    assert answer.status_code == 200, answer.text
    assert answer.json()["data"]["status"] == "succeed"
    assert picture_at(answer.json()["data"]["img_presigned_urls"][0]).size == (64, 64)
