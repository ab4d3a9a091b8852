"""Models and trainings as clients see them."""

from typing import Any

from services.common.backends import BackendName
from services.common.times import as_epoch, as_text
from services.training.model_repository import Model
from services.training.repository import Work
from services.training.states import SHOWN, Status
from services.training.storage import WorkStorage


def shown_model(model: Model) -> dict[str, Any]:
    """An entry of the list of models, with its state."""
    return {
        "id": model["_id"],
        "model_name": model["name"],
        "model_type": model["model_type"],
        "created": as_epoch(model["created"]),
        "params": model["params"],
        "status": model["status"],
        "output_s3_location": model["s3_location"],
        "checkpoint_id": model["checkpoint_id"],
        "files": model["files"],
        "error": model["error"],
    }


def training_job(work: Work, storage: WorkStorage) -> dict[str, Any]:
    """`data.job` of answers that create and change trainings."""
    return {
        "id": work["_id"],
        "status": SHOWN[work["status"]],
        "trainType": work["train_type"],
        "params": work["params"],
        "input_location": storage.input_location(work),
        "output_location": storage.location(work),
        "checkpoint_id": work.get("checkpoint_id"),
        "error": work.get("error"),
    }


def listed_training(work: Work) -> dict[str, Any]:
    """An entry of the list of trainings."""
    return {
        "id": work["_id"],
        "modelName": work["model_name"],
        "status": SHOWN[work["status"]],
        "trainType": work["train_type"],
        "created": as_epoch(work["created"]),
        "sagemakerTrainName": work.get("sagemaker_name"),
        "progress": work.get("progress"),
    }


def shown_training(work: Work, storage: WorkStorage) -> dict[str, Any]:
    """The members of OneTraining."""
    return {
        "id": work["_id"],
        "checkpoint_id": work.get("checkpoint_id"),
        "checkpoint_name": work.get("result_name"),
        "job_status": SHOWN[work["status"]],
        "model_id": work["model_id"],
        "modelName": work["model_name"],
        "params": work["params"],
        "timestamp": as_epoch(work["created"]),
        "train_type": work["train_type"],
        "progress": work.get("progress"),
        "loss": curve(work["losses"]),
        "samples": [_file(one, storage) for one in work["samples"]],
        "saves": [_file(one, storage) for one in work["saves"]],
        "unknown_parameters": work.get("unknown_parameters") or [],
        "notes": work.get("notes") or [],
        "error": work.get("error"),
        "waits_for": _waits_for(work),
        "attempts": work["attempt"],
        "startTime": as_text(work.get("started_at")),
        "endTime": as_text(work.get("ended_at")),
        "output_location": storage.location(work),
        "sagemakerTrainName": work.get("sagemaker_name"),
    }


def _waits_for(work: Work) -> str | None:
    if work.get("waits_for") or work["status"] != Status.QUEUED:
        return work.get("waits_for")
    if work["backend"] == BackendName.SAGEMAKER:
        return "SageMaker"
    kind = f" of the instance type {work['instance_type']}" if work["instance_type"] else ""
    return f"a worker{kind} that is idle and has a free slot"


def curve(losses: list[list[float]]) -> list[list[float]]:
    """(step, loss) in order; of steps that a second attempt did again, the last."""
    return [list(point) for point in sorted({point[0]: point[1] for point in losses}.items())]


def _file(entry: dict[str, Any], storage: WorkStorage) -> dict[str, Any]:
    url = storage.read_url(entry["key"], "client")
    return {"name": entry["name"], "step": entry["step"], "url": url}
