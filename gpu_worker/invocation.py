"""Reads what SageMaker brings to /invocations: one attempt at one job, complete with addresses."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gpu_worker.errors import RequestFault
from gpu_worker.jobs import Job
from gpu_worker.limits import MAX_PARAMETER_BYTES, shown

# The rest of a document is a few addresses for each file.
MAX_BODY_BYTES = MAX_PARAMETER_BYTES + 2**20
MAX_MODELS = 100
MAX_UPLOADS = 1000
MAX_ATTEMPT = 10**6
LONGEST_ID = 64
LONGEST_TEXT = 255
LONGEST_URL = 8192
LARGEST_INTEGER = 2**63


@dataclass(frozen=True, slots=True)
class Invocation:
    """A job, its parameters if they came along, where each result is PUT, and until when (epoch seconds)."""

    job: Job
    parameters: dict[str, Any] | None
    uploads: Mapping[str, str]
    expires_at: float


def read_invocation(content: bytes) -> Invocation:
    """The invocation of docs/internals.md; raises `RequestFault` that names the field."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        raise RequestFault("the invocation is not valid JSON") from None
    if not isinstance(document, dict):
        raise RequestFault(f"the invocation must be a JSON object, not {shown(document)}")
    parameters = document.get("parameters")
    if parameters is not None and not isinstance(parameters, dict):
        raise RequestFault(f"parameters must be an object, not {shown(parameters)}")
    job = Job.from_json(
        {
            "id": _text(document, "id", LONGEST_ID),
            "attempt": _whole(document, "attempt", 1, MAX_ATTEMPT),
            "lease_seconds": 0,
            "endpoint": "",
            "task_type": _text(document, "task_type", LONGEST_TEXT),
            "request_id": _text(document, "request_id", LONGEST_TEXT, default=""),
            "parameters_url": _url(document, "parameters_url") if parameters is None else "",
            "seed": _whole(document, "seed", 0, LARGEST_INTEGER),
            "models": _models(document),
        }
    )
    return Invocation(job, parameters, _uploads(document), _time(document, "expires_at"))


def _models(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    models = document.get("models")
    if not isinstance(models, list) or len(models) > MAX_MODELS:
        raise RequestFault(f"models must be a list of at most {MAX_MODELS} files, not {shown(models)}")
    return [_model(model, f"models[{position}]") for position, model in enumerate(models)]


def _model(model: Any, where: str) -> dict[str, Any]:
    if not isinstance(model, dict):
        raise RequestFault(f"{where} must be an object, not {shown(model)}")
    read = {name: _text(model, name, LONGEST_TEXT, where=where) for name in ("type", "name", "id")}
    if model.get("url") is None:  # a built-in choice
        return read
    return read | {
        "url": _url(model, "url", where),
        "size": _whole(model, "size", 0, LARGEST_INTEGER, where),
        "etag": _text(model, "etag", LONGEST_TEXT, default="", where=where),
        "sha256": _text(model, "sha256", LONGEST_TEXT, default="", where=where),
    }


def _uploads(document: Mapping[str, Any]) -> dict[str, str]:
    uploads = document.get("uploads")
    if not isinstance(uploads, dict) or len(uploads) > MAX_UPLOADS:
        raise RequestFault(
            f"uploads must be an object of at most {MAX_UPLOADS} addresses by file name, not {shown(uploads)}"
        )
    return {name: _url(uploads, name, "uploads") for name in uploads}


def _text(
    box: Mapping[str, Any], name: str, longest: int, *, default: str | None = None, where: str = ""
) -> str:
    value = box.get(name)
    if value is None and default is not None:
        return default
    if not isinstance(value, str) or not 0 < len(value) <= longest:
        raise RequestFault(
            f"{_path(where, name)} must be text of 1 to {longest} characters, not {shown(value)}"
        )
    return value


def _url(box: Mapping[str, Any], name: str, where: str = "") -> str:
    value = _text(box, name, LONGEST_URL, where=where)
    if not value.startswith(("http://", "https://")):
        # Shown shortened: what follows the path of a presigned URL is a secret.
        raise RequestFault(
            f"{_path(where, name)} must begin with http:// or https://, not {shown(value[:10])}"
        )
    return value


def _whole(box: Mapping[str, Any], name: str, least: int, most: int, where: str = "") -> int:
    value = box.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise RequestFault(
            f"{_path(where, name)} must be a whole number from {least} to {most}, not {shown(value)}"
        )
    return value


def _time(box: Mapping[str, Any], name: str) -> float:
    value = box.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise RequestFault(f"{name} must be a time in epoch seconds, not {shown(value)}")
    return float(value)


def _path(where: str, name: str) -> str:
    return f"{where}.{shown(name)[1:-1]}" if where else name
