"""A job as clients see it."""

from typing import Any

from services.common.times import as_text
from services.inference.records import Job
from services.inference.states import Status, shown
from services.inference.storage import JobStorage, result_file
from services.inference.waiting import Place

NO_VAE_MODEL = {"id": "VAE", "s3": "None", "type": "VAE"}


def job_view(job: Job, storage: JobStorage, place: Place) -> dict[str, Any]:
    """The whole of `data` of GET /inferences/{id}."""
    job_id = job["_id"]
    images = job.get("image_names", [])
    finished = job["status"] == Status.SUCCEED
    return {
        "InferenceJobId": job_id,
        "status": shown(job["status"]),
        "taskType": job["task_type"],
        "inference_type": job["inference_type"],
        "createTime": as_text(job["created_at"]),
        "startTime": as_text(job.get("started_at") or job.get("queued_at")),
        "completeTime": as_text(job.get("completed_at")),
        "image_names": images,
        "img_presigned_urls": storage.result_urls(job, images),
        "output_presigned_urls": storage.result_urls(job, [result_file(job_id)]) if finished else [],
        "params": _params(job, storage),
        "owner_group_or_role": job["roles"],
        "sagemakerRaw": raw_output(job_id, images) if finished else None,
        "inference_info_name": result_file(job_id) if finished else None,
        "progress": job.get("progress"),
        "preview_presigned_url": storage.preview_url(job_id) if "preview" in job and not finished else None,
        "priority": job.get("priority", 0),
        "queue_position": place.position,
        "estimated_wait_seconds": place.wait_seconds,
        "attempts": job["attempt"],
        "timeline": _timeline(job),
        "error": job.get("error"),
    }


def history_view(job: Job) -> list[dict[str, Any]]:
    """Every change of the job's state: when, by whom, and why where there is a reason."""
    return [
        {
            "state": line["status"],
            "time": as_text(line["at"]),
            "actor": line["actor"],
            "reason": line.get("reason"),
        }
        for line in job["history"]
    ]


def raw_output(job_id: str, images: list[str]) -> dict[str, Any]:
    """What lies at the job's output path: the shape of the older product's raw answer."""
    return {
        "status": 200,
        "message": "completed",
        "id": job_id,
        "image_names": images,
        "parameters": result_file(job_id),
    }


def created_view(job: Job, storage: JobStorage) -> dict[str, Any]:
    """The answer to the creation of a job."""
    return {
        "inference": {
            "id": job["_id"],
            "type": job["task_type"],
            "api_params_s3_location": storage.parameters_location(job),
            "api_params_s3_upload_url": storage.upload_url(job),
            "models": [
                {"id": model["id"], "name": [model["name"]], "type": model["type"]} for model in job["models"]
            ],
        }
        | webhook_secret(job)
    }


def webhook_secret(job: Job) -> dict[str, Any]:
    """What its events are signed with, for whoever creates a job that names a webhook."""
    return {"webhook_secret": job["webhook"]["secret"]} if "webhook" in job else {}


def started_view(job: Job, storage: JobStorage) -> dict[str, Any]:
    """The answer to the start of an Async job."""
    return {
        "inference": {
            "inference_id": job["_id"],
            "status": shown(job["status"]),
            "endpoint_name": job["endpoint"],
            "output_path": storage.output_location(job),
        }
    }


def _params(job: Job, storage: JobStorage) -> dict[str, Any]:
    used: dict[str, list[dict[str, Any]]] = {}
    for model in job["models"]:
        shown_model = {
            "id": model["id"],
            "model_name": model["name"],
            "s3": model["s3_location"],
            "type": model["type"],
        }
        used.setdefault(model["type"], []).append(shown_model)
    return {
        "input_body_s3": storage.parameters_location(job),
        "input_body_presign_url": storage.parameters_url(job),
        "used_models": used,
        "sagemaker_inference_endpoint_id": job["endpoint_id"],
        "sagemaker_inference_endpoint_name": job["endpoint"],
        "sagemaker_inference_instance_type": job["instance_type"],
        "output_path": storage.output_location(job),
    }


def _timeline(job: Job) -> dict[str, Any]:
    steps = job.get("timeline", {})
    succeeded = job["status"] == Status.SUCCEED
    return {
        "created": as_text(job["created_at"]),
        "queued": as_text(job.get("queued_at")),
        "claimed": as_text(job.get("started_at")),
        "first_step": as_text(steps.get("first_step")),
        "last_step": as_text(steps.get("last_step")),
        "fetchable": as_text(job["completed_at"]) if succeeded else None,
    }
