"""Where the objects of a job lie."""

import hashlib
import json
from typing import Any

from services.common.s3 import ObjectStore

LARGEST_PARAMETERS = 32 * 2**20
OUTPUTS = "sagemaker_output"


def parameters_prefix(task_type: str, job_id: str) -> str:
    """The folder of the parameters."""
    return f"{task_type}/infer_v2/{job_id}/"


def parameters_key(task_type: str, job_id: str) -> str:
    """The uploaded generation parameters."""
    return parameters_prefix(task_type, job_id) + "api_param.json"


def result_prefix(job_id: str) -> str:
    """The folder of the pictures and their parameter file."""
    return f"out/{job_id}/result/"


def attempt_folder(attempt: int) -> str:
    """The folder of one attempt's results below `result_prefix`, where attempts must not meet."""
    return f"attempt-{attempt}/"


def result_file(job_id: str) -> str:
    """The name of the parameter file beside the pictures."""
    return f"{job_id}_param.json"


def output_key(job_id: str) -> str:
    """The raw output."""
    return f"{OUTPUTS}/{job_id}.out"


def preview_key(job_id: str) -> str:
    """The last small picture of a job that is being computed."""
    return f"out/{job_id}/preview"


class JobStorage:
    """The objects of jobs in the platform's bucket."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def parameters_location(self, job: dict[str, Any]) -> str:
        """`s3://…` of the parameters."""
        return self._store.location(parameters_key(job["task_type"], job["_id"]))

    def output_location(self, job: dict[str, Any]) -> str:
        """`s3://…` of the raw output; SageMaker says itself where it puts its own."""
        return str(job.get("output_location") or self._store.location(output_key(job["_id"])))

    def upload_url(self, job: dict[str, Any]) -> str:
        """Where the client PUTs the parameters."""
        return self._store.presign_put(parameters_key(job["task_type"], job["_id"]))

    def parameters_url(self, job: dict[str, Any]) -> str:
        """Where a client fetches the parameters."""
        return self._store.presign_get(parameters_key(job["task_type"], job["_id"]))

    def sealed_url(self, job: dict[str, Any]) -> str:
        """Where a worker fetches the parameters that the job was started with."""
        # A job that an earlier version has queued has nothing sealed.
        key = job.get("sealed_parameters") or parameters_key(job["task_type"], job["_id"])
        return self._store.presign_get(key, "worker")

    def seal_parameters(self, job: dict[str, Any], content: bytes) -> str:
        """Keep the parameters that were checked where no client can overwrite them; the key.

        It names the content: of two starts at once, the one that is refused changes nothing of the other's.
        """
        digest = hashlib.sha256(content).hexdigest()
        key = parameters_prefix(job["task_type"], job["_id"]) + f"started-{digest}.json"
        self._store.write(key, content)
        return key

    def read_parameters(self, job: dict[str, Any]) -> bytes | None:
        """The uploaded parameters, None when there are none, cut off after what is too much to be any."""
        return self._store.read(parameters_key(job["task_type"], job["_id"]), LARGEST_PARAMETERS + 1)

    def write_parameters(self, job: dict[str, Any], text: str) -> None:
        """Keep parameters that came inside a request."""
        self._store.write(parameters_key(job["task_type"], job["_id"]), text.encode())

    def result_urls(self, job: dict[str, Any], names: list[str]) -> list[str]:
        """Where a client fetches results."""
        prefix = result_prefix(job["_id"]) + job.get("result_folder", "")
        return [self._store.presign_get(prefix + name) for name in names]

    def write_preview(self, job_id: str, picture: bytes, kind: str) -> None:
        """Keep a preview in place of the one before."""
        self._store.write(preview_key(job_id), picture, kind)

    def preview_url(self, job_id: str) -> str:
        """Where a client fetches the last preview."""
        return self._store.presign_get(preview_key(job_id))

    def result_upload_urls(self, job_id: str, names: list[str], seconds: int) -> dict[str, str]:
        """Where a worker PUTs results, for so many seconds."""
        return {
            name: self._store.presign_put(result_prefix(job_id) + name, "worker", seconds) for name in names
        }

    def model_url(self, key: str) -> str:
        """Where a worker fetches a checkpoint file."""
        return self._store.presign_get(key, "worker")

    def write_output(self, job_id: str, output: dict[str, Any]) -> None:
        """Keep the raw output."""
        self._store.write(output_key(job_id), json.dumps(output).encode())

    def delete_all(self, job: dict[str, Any]) -> None:
        """Remove every object of the job."""
        job_id = job["_id"]
        self._store.delete([output_key(job_id), preview_key(job_id)])
        if job.get("output_location"):
            self._store.delete_under(f"{OUTPUTS}/{job_id}-")  # SageMaker's answers, by attempt
        self._store.delete_under(parameters_prefix(job["task_type"], job_id), result_prefix(job_id))
