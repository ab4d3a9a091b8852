"""Where the objects of invocations lie; every attempt has its own, so that a late one overwrites nothing."""

import json
from typing import Any

from services.common.s3 import ObjectStore
from services.inference.records import Job
from services.inference.storage import attempt_folder, result_file, result_prefix

# What a container may name image_0.png … besides the parameter file.
MOST_IMAGES = 65


def inference_id(job_id: str, attempt: int) -> str:
    """SageMaker's name of an attempt."""
    return f"{job_id}-{attempt}"


class InvocationStorage:
    """Inputs, answers and results in the platform's bucket."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def write_input(self, name: str, document: dict[str, Any]) -> str:
        """Keep an invocation for SageMaker to fetch; its `s3://…`."""
        self._store.write(_input_key(name), json.dumps(document).encode())
        return self._store.location(_input_key(name))

    def upload_urls(self, job: Job, seconds: int) -> dict[str, str]:
        """Where the container PUTs this attempt's results, for so many seconds."""
        names = [f"image_{number}.png" for number in range(MOST_IMAGES)] + [result_file(job["_id"])]
        prefix = _results(job["_id"], job["attempt"])
        return {name: self._store.presign_put(prefix + name, "worker", seconds) for name in names}

    def stored_results(self, job_id: str, attempt: int) -> set[str]:
        """The names of the results that arrived."""
        prefix = _results(job_id, attempt)
        return {key.removeprefix(prefix) for key in self._store.keys_under(prefix)}

    def read(self, location: str, limit: int) -> bytes | None:
        """The object at `s3://…` of the platform's bucket; None when there is none."""
        key = self._key(location)
        return self._store.read(key, limit) if key else None

    def delete_input(self, name: str) -> None:
        """Forget what SageMaker has fetched."""
        self._store.delete([_input_key(name)])

    def delete_attempt(self, name: str, job_id: str, attempt: int, locations: list[str | None]) -> None:
        """Remove everything that an attempt left."""
        keys = [self._key(location) for location in locations if location]
        self._store.delete([_input_key(name), *(key for key in keys if key)])
        self._store.delete_under(_results(job_id, attempt))

    def _key(self, location: str) -> str | None:
        """The key of a location in the platform's bucket; others are none of our business."""
        bucket, _, key = location.removeprefix("s3://").partition("/")
        return key if bucket == self._store.bucket and key else None


def _input_key(name: str) -> str:
    return f"sagemaker_input/{name}.json"


def _results(job_id: str, attempt: int) -> str:
    return result_prefix(job_id) + attempt_folder(attempt)
