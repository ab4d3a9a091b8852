"""A claimed job and its model files, as the inference service describes them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A checkpoint file of a job: `size` in bytes, `url` a presigned GET.

    Built-in choices (the VAEs Automatic and None) have neither.
    """

    type: str
    name: str
    id: str
    url: str
    size: int
    etag: str
    sha256: str | None = None

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "ModelFile":
        """Reads an entry of `models`; KeyError, TypeError or ValueError for another shape."""
        return cls(
            type=str(document["type"]),
            name=str(document["name"]),
            id=str(document["id"]),
            url=str(document.get("url") or ""),
            size=int(document.get("size") or 0),
            etag=str(document.get("etag") or "").strip('"'),
            sha256=document.get("sha256") or None,
        )

    @property
    def version(self) -> str:
        """Names the content: another upload under the same id has another version."""
        return f"{self.id}:{self.etag}"


@dataclass(frozen=True, slots=True)
class Job:
    """One attempt at a job, held under a lease of `lease_seconds`."""

    id: str
    attempt: int
    lease_seconds: float
    endpoint: str
    task_type: str
    request_id: str
    parameters_url: str
    seed: int
    models: tuple[ModelFile, ...]
    traceparent: str = ""
    preview: bool = False

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Job":
        """Reads the `Job` of docs/internals.md; KeyError, TypeError or ValueError for another shape."""
        models = tuple(ModelFile.from_json(model) for model in document["models"])
        return cls(
            id=str(document["id"]),
            attempt=int(document["attempt"]),
            lease_seconds=float(document["lease_seconds"]),
            endpoint=str(document["endpoint"]),
            task_type=str(document["task_type"]),
            request_id=str(document.get("request_id") or ""),
            parameters_url=str(document["parameters_url"]),
            seed=int(document["seed"]),
            models=models,
            traceparent=str(document.get("traceparent") or ""),
            preview=document.get("preview") is True,
        )

    def of_type(self, model_type: str) -> list[ModelFile]:
        """The job's files of one checkpoint type, in the order of the request."""
        return [model for model in self.models if model.type == model_type]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint that this worker is to serve."""

    id: str
    name: str
    type: str
