"""What the service checks of generation parameters before a job may wait: shape and bounds."""

import hashlib
import json
import math
import secrets
from dataclasses import dataclass
from typing import Any

from services.common.web import read_json_object
from services.inference.errors import ParametersNotJson, ParametersRefused
from services.inference.storage import LARGEST_PARAMETERS


@dataclass(frozen=True)
class Bounds:
    """A whole-number parameter: its default and its bounds, both included."""

    default: int
    least: int
    largest: int


# The GPU worker has the same bounds (gpu_worker/limits.py): it trusts nobody either.
BOUNDS = {
    "width": Bounds(512, 64, 2048),
    "height": Bounds(512, 64, 2048),
    "steps": Bounds(20, 1, 150),
    "batch_size": Bounds(1, 1, 16),
    "n_iter": Bounds(1, 1, 64),
}
MAX_IMAGES = 64
LARGEST_DRAWN_SEED = 2**32 - 1  # as the WebUI draws them
LARGEST_SEED = 2**53  # what every JSON reader keeps exactly
LONGEST_NUMBER = 40


@dataclass(frozen=True)
class Summary:
    """What scheduling needs to know of a job's parameters."""

    width: int
    height: int
    steps: int
    images: int
    seed: int
    batch_key: str


def read_parameters(content: bytes) -> dict[str, Any]:
    """The uploaded JSON object. Raises ParametersNotJson, ParametersRefused."""
    if len(content) > LARGEST_PARAMETERS:
        raise ParametersRefused(f"the parameters are larger than {LARGEST_PARAMETERS // 2**20} MB")
    parameters = read_json_object(content)
    if parameters is None:
        raise ParametersNotJson
    return parameters


def summarise(task_type: str, parameters: dict[str, Any], model_ids: list[str]) -> Summary:
    """Check the bounds of what costs time and memory. Raises ParametersRefused, which names the field."""
    numbers = {name: _whole(parameters, name) for name in BOUNDS}
    images = numbers["batch_size"] * numbers["n_iter"]
    if images > MAX_IMAGES:
        raise ParametersRefused(
            f"batch_size {numbers['batch_size']} times n_iter {numbers['n_iter']} makes {images} images: "
            f"at most {MAX_IMAGES} are allowed in one job"
        )
    alike = [
        task_type,
        sorted(model_ids),
        numbers["width"],
        numbers["height"],
        numbers["steps"],
        str(parameters.get("sampler_name") or parameters.get("sampler_index")),
        str(parameters.get("scheduler")),
        str(parameters.get("cfg_scale")),
    ]
    return Summary(
        width=numbers["width"],
        height=numbers["height"],
        steps=numbers["steps"],
        images=images,
        seed=_seed(parameters),
        # Only compared; a client may have said a megabyte where a sampler is named.
        batch_key=hashlib.sha256(json.dumps(alike).encode()).hexdigest(),
    )


def _whole(parameters: dict[str, Any], name: str) -> int:
    bounds = BOUNDS[name]
    value = parameters.get(name)
    if value is None:
        return bounds.default
    number = _as_whole(value)
    if number is None:
        raise ParametersRefused(f"{name} must be a whole number, not {_short(value)}")
    if not bounds.least <= number <= bounds.largest:
        raise ParametersRefused(
            f"{name} must be between {bounds.least} and {bounds.largest}, not {_short(value)}"
        )
    return number


def _as_whole(value: Any) -> int | None:
    if isinstance(value, str) and len(value) <= LONGEST_NUMBER:
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, float) and not (math.isfinite(value) and value.is_integer()):
        return None
    return int(value)


def _seed(parameters: dict[str, Any]) -> int:
    """The job's seed; a random one is drawn here, so that every attempt makes the same pictures."""
    value = parameters.get("seed")
    number = -1 if value is None or value == "" else _as_whole(value)
    if number is None:
        raise ParametersRefused(f"seed must be a whole number, not {_short(value)}")
    if number == -1:
        return secrets.randbelow(LARGEST_DRAWN_SEED + 1)
    if not 0 <= number <= LARGEST_SEED:
        raise ParametersRefused(
            f"seed must be -1 (random) or between 0 and {LARGEST_SEED}, not {_short(value)}"
        )
    return number


def _short(value: Any) -> str:
    text = repr(value) if not isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."
