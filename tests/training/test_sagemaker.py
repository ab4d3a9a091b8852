"""Trainings as training jobs of SageMaker: the same states, whatever AWS and its containers do."""

import io
import json
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from services.common.settings import SettingsError, read_settings
from services.training.app import create_app
from services.training.config import Config
from tests.conftest import Keys
from tests.gpu_worker import tiny
from tests.neighbours import Neighbours
from tests.training.aws import IMAGE, ROLE, Aws, run_container, running_aws
from tests.training.conftest import SHAPES, Platform, Service, serve

PLACE = {"training_instance_type": "ml.g5.2xlarge"}


@pytest.fixture(scope="module")
def aws() -> Iterator[Aws]:
    with running_aws() as running:
        yield running


@pytest.fixture(scope="module")
def deployment(
    environment: Callable[..., dict[str, str]], keys: Keys, running_neighbours: Neighbours, aws: Aws
) -> Iterator[Any]:
    url = running_neighbours.url
    variables = environment(
        CHECKPOINTS_URL=url,
        DATASETS_URL=url,
        BACKENDS="local,sagemaker",
        SAGEMAKER_EXECUTION_ROLE_ARN=ROLE,
        SAGEMAKER_IMAGE_URI=IMAGE,
        SAGEMAKER_ENDPOINT_URL=aws.url,
    )
    with serve(create_app(read_settings(Config, variables), users_keys=keys)) as app:
        yield app


@pytest.fixture()
def service(deployment: Any, keys: Keys, running_neighbours: Neighbours, aws: Aws) -> Service:
    aws.reset()
    platform = Platform()
    platform.dataset()
    made = Service.fresh(deployment, keys, platform, running_neighbours)
    made.parts.storage.objects.write("dataset/stars/a.png", _picture())
    return made


def _picture() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 64), "violet").save(file, "PNG")
    return file.getvalue()


def follow(service: Service) -> None:
    service.parts.following.run()


def started(service: Service, **config: Any) -> tuple[str, str]:
    """The ids of a training that SageMaker runs, and of its job."""
    training_id = service.create(training=PLACE, **config)
    assert service.call("PUT", f"/trainings/{training_id}/start").status_code == 202
    follow(service)
    return training_id, f"sdfleet-{training_id}-1"


def tell(service: Service, training_id: str, name: str, document: dict[str, Any]) -> None:
    """What the container writes."""
    work = service.parts.work.get(training_id)
    assert work is not None
    key = service.parts.storage.sagemaker_key(work, f"checkpoints/{name}")
    service.parts.storage.objects.write(key, json.dumps({"attempt": work["attempt"]} | document).encode())


def test_a_training_is_asked_for_as_sagemaker_wants_it(service: Service, aws: Aws) -> None:
    training_id, name = started(service)
    job = aws.jobs[name]
    folder = f"s3://{service.parts.storage.objects.bucket}/train/{SHAPES}/{training_id}/output/sagemaker"
    assert job.algorithm_specification["TrainingImage"] == IMAGE
    assert (job.role_arn, job.resource_config["InstanceType"]) == (ROLE, "ml.g5.2xlarge")
    assert job.checkpoint_config == {"S3Uri": f"{folder}/checkpoints", "LocalPath": "/opt/ml/checkpoints"}
    assert service.claimed() is None  # no worker takes it
    shown = service.shown(training_id)
    assert (shown["job_status"], shown["sagemakerTrainName"]) == ("Training", name)


def test_its_progress_is_shown_and_its_result_becomes_a_checkpoint(service: Service, aws: Aws) -> None:
    training_id, name = started(service)
    progress = {
        "step": 5,
        "steps": 10,
        "loss": 0.5,
        "rate": 1.0,
        "remaining_seconds": 5.0,
        "doing": "training",
    }
    told = {"progress": progress, "losses": [[5, 0.5]], "unknown_parameters": ["nope"], "notes": []}
    pictures = [{"name": "sample-5-0.png", "step": 5}, {"name": "../../secret", "step": 5}]
    tell(service, training_id, "progress.json", told | {"samples": pictures, "saves": []})
    follow(service)
    shown = service.shown(training_id)
    assert (shown["progress"], shown["loss"]) == (progress, [[5.0, 0.5]])
    assert [sample["name"] for sample in shown["samples"]] == ["sample-5-0.png"]
    work = service.parts.work.get(training_id)
    assert work is not None
    result = service.parts.storage.sagemaker_key(work, "checkpoints/result.safetensors")
    service.parts.storage.objects.write(result, b"weights")
    tell(service, training_id, "outcome.json", {"status": "complete", "stopped": False, "facts": {}})
    aws.end(name, "Completed")
    follow(service)
    service.parts.finishing.finish(training_id)
    shown = service.shown(training_id)
    assert shown["job_status"] == "Complete"
    assert service.platform.checkpoints[shown["checkpoint_id"]]["status"] == "Active"
    assert list(service.parts.storage.objects.keys_under("train/")) == []  # but for samples that are there


def test_a_failed_job_is_tried_again_and_goes_on(service: Service, aws: Aws) -> None:
    training_id, _ = started(service)
    for attempt in (1, 2, 3):
        aws.end(f"sdfleet-{training_id}-{attempt}", "Failed", "InternalServerError: the host broke")
        follow(service)  # it ends
        follow(service)  # the next begins
    shown = service.shown(training_id)
    assert shown["job_status"] == "Fail"
    assert shown["error"] == "it failed in 3 attempts, the last time: InternalServerError: the host broke"
    assert len(aws.jobs) == 3
    places = {job.checkpoint_config["S3Uri"] for job in aws.jobs.values()}
    assert len(places) == 1  # each goes on from what the one before has left


def test_the_requests_fault_is_not_tried_again(service: Service, aws: Aws) -> None:
    training_id, name = started(service)
    fault = {"status": "failed", "kind": "request", "message": "the training diverged"}
    tell(service, training_id, "outcome.json", fault)
    aws.end(name, "Failed", "AlgorithmError: …")
    follow(service)
    shown = service.shown(training_id)
    assert (shown["job_status"], shown["error"], len(aws.jobs)) == ("Fail", "the training diverged", 1)
    assert service.platform.checkpoints[shown["checkpoint_id"]]["names"] == []


def test_a_stop_goes_to_sagemaker_and_keeps_what_was_learned(service: Service, aws: Aws) -> None:
    training_id, name = started(service)
    service.call("PUT", f"/trainings/{training_id}/stop")
    follow(service)
    assert aws.jobs[name].training_job_status == "Stopping"
    follow(service)
    assert (service.status(training_id), aws.calls["StopTrainingJob"]) == ("Training", 1)
    aws.end(name, "Stopped")
    follow(service)
    assert service.status(training_id) == "Stopped"  # the container had nothing yet


def test_a_deleted_training_is_stopped_and_leaves_nothing(service: Service, aws: Aws) -> None:
    training_id, name = started(service)
    service.call("DELETE", "/trainings", {"training_id_list": [training_id]})
    assert service.call("GET", f"/trainings/{training_id}").status_code == 404
    assert aws.jobs[name].training_job_status == "Stopping"
    assert list(service.parts.storage.objects.keys_under("train/")) != []  # it may still write
    aws.end(name, "Stopped")
    service.parts.finishing.sweep()
    assert list(service.parts.storage.objects.keys_under("train/")) == []
    assert service.parts.database["work"].count_documents({}) == 0


@pytest.mark.parametrize(
    ("code", "message", "shown"),
    [
        ("ThrottlingException", "Rate exceeded", ("Pending", None)),
        ("ResourceLimitExceeded", "… is 0 Instances", ("Pending", None)),
        (
            "ValidationException",
            "no such instance type",
            ("Fail", "SageMaker refuses the training job (ValidationException): no such instance type"),
        ),
        (
            "AccessDeniedException",
            "not authorized",
            ("Fail", "SageMaker refuses the training job (AccessDeniedException): not authorized"),
        ),
    ],
)
def test_what_aws_says_to_a_creation(
    service: Service, aws: Aws, code: str, message: str, shown: tuple[str, str | None]
) -> None:
    aws.refusals["CreateTrainingJob"] = (code, message)
    training_id, _ = started(service)
    seen = service.shown(training_id)
    assert (seen["job_status"], seen["error"]) == shown
    if shown[1] is None:
        assert message in seen["waits_for"]
        aws.refusals.clear()
        service.parts.database["work"].update_one(
            {"_id": training_id}, [{"$set": {"not_before": "$created"}}]
        )
        follow(service)
        assert (service.status(training_id), len(aws.jobs)) == ("Training", 1)


def test_a_death_after_the_creation_makes_no_second_job(
    service: Service, aws: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = service.parts.following._jobs.create

    def dies(arguments: Any) -> None:
        create(arguments)
        raise KeyboardInterrupt

    training_id = service.create(training=PLACE)
    service.call("PUT", f"/trainings/{training_id}/start")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(service.parts.following._jobs, "create", dies)
        follow(service)
    follow(service)
    assert (service.status(training_id), len(aws.jobs)) == ("Training", 1)


def test_a_death_before_the_creation_is_made_good(
    service: Service, aws: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(_: Any) -> None:
        raise KeyboardInterrupt

    training_id = service.create(training=PLACE)
    service.call("PUT", f"/trainings/{training_id}/start")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(service.parts.following._jobs, "create", dies)
        follow(service)
    assert len(aws.jobs) == 0
    follow(service)
    assert (service.status(training_id), len(aws.jobs)) == ("Training", 1)


def test_the_backend_is_chosen_by_name_or_instance_type(service: Service) -> None:
    def backend(**training: str) -> str:
        work = service.parts.work.get(service.create(training=training))
        assert work is not None
        return str(work["backend"])

    assert backend() == "local"
    assert backend(training_instance_type="local.gpu") == "local"
    assert backend(**PLACE) == "sagemaker"
    assert backend(**PLACE, backend="local") == "local"
    body = {"train_type": "x", "params": {"training_params": {"model": SHAPES, "dataset": "stars"}}}
    body["params"]["training_params"]["backend"] = "sagemaker"
    assert service.message("POST", "/trainings", body) == (
        "training_params.training_instance_type must be one of SageMaker's, such as ml.g5.2xlarge"
    )
    body["params"]["training_params"]["backend"] = "moon"
    assert service.message("POST", "/trainings", body).endswith("must be one of local, sagemaker")


def test_a_deployment_with_sagemaker_needs_a_role_and_an_image(
    environment: Callable[..., dict[str, str]],
) -> None:
    with pytest.raises(SettingsError, match="SAGEMAKER_EXECUTION_ROLE_ARN, SAGEMAKER_IMAGE_URI"):
        read_settings(Config, environment(BACKENDS="sagemaker"))


@pytest.mark.timeout(600)
def test_the_workers_entry_trains_in_sagemakers_folders_and_a_second_job_goes_on(
    service: Service, aws: Aws, tmp_path: Path
) -> None:
    objects = service.parts.storage.objects
    base = tiny.write_sd1(tmp_path / "base.safetensors")
    objects.write(f"k/{SHAPES}", base.read_bytes())
    service.platform.sizes[SHAPES] = base.stat().st_size
    training_id, name = started(service, max_train_steps=300, resolution=64, network_dim=2)
    first = run_container(aws.jobs[name], objects, tmp_path / "first")
    kept = first.root / "checkpoints"
    wait_for(lambda: (kept / "last.state").exists() and _step(kept / "progress.json") > 0, first)
    first.process.send_signal(signal.SIGKILL)  # the host is gone
    first.wait()
    follow(service)
    shown = service.shown(training_id)
    assert 0 < shown["progress"]["step"] < 300
    aws.end(name, "Failed", "InternalServerError")
    follow(service)
    follow(service)
    second = run_container(aws.jobs[f"sdfleet-{training_id}-2"], objects, tmp_path / "second")
    progress = second.root / "checkpoints" / "progress.json"
    wait_for(lambda: json.loads(progress.read_text()).get("attempt") == 2 and _trains(progress), second)
    second.process.terminate()  # a user stops it: two minutes to end
    assert second.wait() == 0
    outcome = json.loads((second.root / "checkpoints" / "outcome.json").read_text())
    assert (outcome["status"], outcome["stopped"], outcome["attempt"]) == ("complete", True, 2)
    aws.end(f"sdfleet-{training_id}-2", "Stopped")
    follow(service)
    service.parts.finishing.finish(training_id)
    shown = service.shown(training_id)
    assert (shown["job_status"], shown["attempts"]) == ("Stopped", 2)


def _step(progress: Path) -> int:
    return int(json.loads(progress.read_text())["progress"]["step"])


def _trains(progress: Path) -> bool:
    return json.loads(progress.read_text())["progress"]["doing"] == "training"


def wait_for(look: Callable[[], bool], container: Any, seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not look():
        assert container.process.poll() is None, "the container has ended"
        assert time.monotonic() < deadline
        time.sleep(0.1)
