"""From a data set to pictures of its concept, through the gateway."""

import io
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import requests
from PIL import Image

from house import concept
from tests.running import CHECKPOINT, PARAMETERS, Running

PATIENCE = 800  # a busy machine takes its time


def wait_for(look: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, f"this did not come true in {seconds} s"
        time.sleep(0.3)
    return found


def call(running: Running, method: str, path: str, body: Any = None, expect: int | None = None) -> Any:
    answer = running.ask(method, path, body, **running.signed_in())
    assert answer.status_code == expect or (expect is None and answer.ok), answer.text
    return answer.json().get("data") if answer.content else None


def violet_stars(running: Running, name: str) -> None:
    """An Enabled data set of twelve violet stars with captions."""
    made = concept.pictures(12)
    content = [{"filename": f"{n}.png", "caption": caption} for n, (_, caption) in enumerate(made)]
    urls = call(running, "POST", "/datasets", {"dataset_name": name, "content": content})["s3PresignUrl"]
    for n, (pixels, _) in enumerate(made):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        requests.put(urls[f"{n}.png"], data=file.getvalue(), timeout=30).raise_for_status()
    call(running, "PUT", f"/datasets/{name}", {"status": "Enabled"})


def training(running: Running, dataset: str, **config: Any) -> str:
    """The id of a started training."""
    body = {
        "train_type": "Stable-diffusion",
        "params": {
            "training_params": {"model": CHECKPOINT.name, "dataset": dataset},
            "config_params": {
                "use_lora": True,
                "network_dim": 16,
                "learning_rate": 1e-3,
                "max_train_steps": 400,
                "train_batch_size": 4,
                "min_snr_gamma": 5,
                "seed": 3,
            }
            | config,
        },
    }
    created = call(running, "POST", "/trainings", body, 201)["job"]
    assert created["status"] == "Initial"
    started = call(running, "PUT", f"/trainings/{created['id']}/start", {}, 202)["job"]
    assert started["status"] in {"Pending", "Training"}
    return str(created["id"])


def look(running: Running, training_id: str) -> dict[str, Any]:
    return dict(call(running, "GET", f"/trainings/{training_id}"))


def ended(running: Running, training_id: str) -> dict[str, Any]:
    def over() -> dict[str, Any] | None:
        seen = look(running, training_id)
        return seen if seen["job_status"] in {"Complete", "Fail", "Stopped"} else None

    return dict(wait_for(over))


def violet_of(running: Running, lora: str | None) -> int:
    """How many of twenty prompts get a violet star."""
    jobs = []
    for number, prompt in enumerate(concept.prompts()):
        text = f"{prompt} <lora:{lora.removesuffix('.safetensors')}:1>" if lora else prompt
        parameters = {"prompt": text, "steps": 20, "width": 64, "height": 64}
        parameters |= {"seed": concept.SEEDS[number]}
        parameters |= {"sampler_name": "Euler", "cfg_scale": 4}
        jobs.append(start(running, parameters, lora))
    count = 0
    for job_id in jobs:
        count += concept.is_violet_star(picture_of(running, job_id).astype(np.uint8))
    return count


def picture_of(running: Running, job_id: str) -> Any:
    """The picture of a job, (height, width, 3), in whole numbers."""
    job = wait_for(lambda: _done(running, job_id))
    assert job["status"] == "succeed", job["error"]
    content = requests.get(job["img_presigned_urls"][0], timeout=30).content
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)


def start(running: Running, parameters: dict[str, Any], lora: str | None) -> str:
    models = {"Stable-diffusion": [CHECKPOINT.name]} | ({"Lora": [lora]} if lora else {})
    body = {"inference_type": "Async", "task_type": "txt2img", "models": models} | parameters
    return str(call(running, "POST", "/inferences", body, 202)["inference"]["inference_id"])


def _done(running: Running, job_id: str) -> dict[str, Any] | None:
    job = running.job(job_id)
    return job if job["status"] in {"succeed", "failed"} else None


@pytest.mark.timeout(900)
def test_a_few_steps_go_the_whole_way_to_an_active_lora(running: Running) -> None:
    violet_stars(running, "quick-stars")
    training_id = training(
        running,
        "quick-stars",
        max_train_steps=4,
        train_batch_size=2,
        output_name="quick",
        sample_every_n_steps=4,
        save_infer_steps=2,
        sample_prompts=["a violet star"],
        no_such_setting=1,
    )
    seen = ended(running, training_id)
    assert seen["job_status"] == "Complete", seen["error"]
    assert (seen["progress"]["step"], seen["unknown_parameters"]) == (4, ["no_such_setting"])
    assert [step for step, _ in seen["loss"]] == [1, 2, 3, 4]
    sample = requests.get(seen["samples"][0]["url"], timeout=10).content
    assert Image.open(io.BytesIO(sample)).size == (64, 64)
    found = call(running, "GET", f"/checkpoints/{seen['checkpoint_id']}")["checkpoint"]
    assert (found["type"], found["status"], found["name"]) == ("Lora", "Active", ["quick.safetensors"])
    assert "quick.safetensors" in call(running, "GET", "/inference/get-lora-list")
    listed = call(running, "GET", "/trains")["trainJobs"]  # the older path
    assert training_id in [one["id"] for one in listed]


@pytest.mark.timeout(900)
def test_a_stop_and_a_deletion_end_what_runs(running: Running) -> None:
    violet_stars(running, "stopped-stars")
    stopped = training(running, "stopped-stars", max_train_steps=100_000, output_name="stopped")
    wait_for(lambda: (look(running, stopped)["progress"] or {"step": 0})["step"] > 2)
    call(running, "PUT", "/train", {"train_job_id": stopped, "status": "Stopped"}, 200)
    seen = ended(running, stopped)
    assert seen["job_status"] == "Stopped"
    found = call(running, "GET", f"/checkpoints/{seen['checkpoint_id']}")["checkpoint"]
    assert (found["status"], found["name"]) == ("Active", ["stopped.safetensors"])

    deleted = training(running, "stopped-stars", max_train_steps=100_000, output_name="deleted")
    wait_for(lambda: look(running, deleted)["job_status"] == "Training")
    call(running, "DELETE", "/trainings", {"training_id_list": [deleted]})
    after = training(running, "stopped-stars", max_train_steps=1, output_name="deleted")  # the name is free
    assert ended(running, after)["job_status"] == "Complete"


def merge(running: Running, **body: Any) -> dict[str, Any]:
    """The checkpoint that a merge has made."""
    made = call(running, "POST", "/inference/run-model-merge", body, 202)["checkpoint"]

    def active() -> dict[str, Any] | None:
        one = call(running, "GET", f"/checkpoints/{made['id']}")["checkpoint"]
        assert "error" not in one["params"], one["params"]
        return one if one["status"] == "Active" else None

    return dict(wait_for(active))


@pytest.mark.timeout(900)
def test_a_merge_of_a_checkpoint_with_itself_draws_the_same(running: Running) -> None:
    name = CHECKPOINT.name
    made = merge(running, primary_model_name=name, secondary_model_name=name, custom_name="twice")
    assert made["name"] == ["twice.safetensors"]
    assert made["params"]["merge"]["multiplier"] == 0.5
    assert json.loads(made["params"]["metadata"]["sd_merge_recipe"])["interp_method"] == "Weighted sum"
    jobs = [running.start(PARAMETERS, model) for model in (name, "twice.safetensors")]
    pictures = [picture_of(running, job_id) for job_id in jobs]
    assert np.abs(pictures[0] - pictures[1]).max() <= 2


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_data_set_becomes_a_lora_that_draws_its_concept(running: Running) -> None:
    violet_stars(running, "violet-stars")
    training_id = training(
        running,
        "violet-stars",
        output_name="violet",
        sample_every_n_steps=200,
        sample_prompts=["a violet star on a white background"],
        no_such_setting=1,
    )
    wait_for(lambda: len(look(running, training_id)["loss"]) > 20)
    during = look(running, training_id)
    assert during["job_status"] == "Training"
    assert during["progress"]["step"] < during["progress"]["steps"] == 400
    assert during["progress"]["remaining_seconds"] > 0
    seen = ended(running, training_id)
    assert seen["job_status"] == "Complete", seen["error"]
    assert seen["unknown_parameters"] == ["no_such_setting"]
    steps = [step for step, _ in seen["loss"]]
    assert (steps[-1], steps) == (400, sorted(set(steps)))
    assert seen["loss"][-1][1] < seen["loss"][0][1]
    assert [sample["step"] for sample in seen["samples"]] == [200, 400]
    sample = requests.get(seen["samples"][1]["url"], timeout=10).content
    assert Image.open(io.BytesIO(sample)).size == (64, 64)

    found = call(running, "GET", f"/checkpoints/{seen['checkpoint_id']}")["checkpoint"]
    assert (found["type"], found["status"], found["name"]) == ("Lora", "Active", ["violet.safetensors"])
    assert found["params"]["architecture"].endswith("LoRA (kohya)")
    assert found["params"]["metadata"]["ss_network_dim"] == "16"
    assert "warning" not in found["params"]

    with_lora, without = violet_of(running, "violet.safetensors"), violet_of(running, None)
    assert (with_lora >= 16, without) == (True, 0), (with_lora, without)
