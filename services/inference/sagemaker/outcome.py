"""Reads what a container answered, or how SageMaker wrote down that it failed."""

import json
import re
from dataclasses import dataclass
from typing import Any

from services.inference.worker_schemas import IMAGE_NAME, MOST_IMAGES

LARGEST_ANSWER = 4 * 2**20
LONGEST_TOLD = 500
KINDS = {"request", "passing", "machine"}


@dataclass(frozen=True)
class Made:
    """The pictures of an attempt."""

    images: list[str]
    timings: dict[str, Any]


@dataclass(frozen=True)
class Failed:
    """Why an attempt made none; `kind` as in docs/internals.md."""

    kind: str
    message: str


def read_answer(content: bytes, job_id: str, attempt: int) -> Made | Failed:
    """A container's answer to /invocations; whatever else it is, it is a failed attempt."""
    try:
        answer = json.loads(content)
        if (answer["id"], answer["attempt"]) != (job_id, attempt):
            return Failed("passing", "the container answered about another job")
        images, timings = answer["image_names"], answer["timings"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return Failed("passing", "the container's answer was not understood: is it sdfleet's image?")
    if not isinstance(images, list) or not _are_image_names(images):
        return Failed("passing", "the container named pictures as no picture is named")
    return Made(images, _moments(timings))


def read_failure(content: bytes) -> Failed:
    """The container's sentence, when it can be found in what SageMaker wrote; else all that was written.

    SageMaker quotes a container's answer inside a sentence of its own.
    """
    text = content.decode(errors="replace")
    for candidate in (text, text.replace('\\"', '"')):
        if told := _find(candidate):
            return told
    short = " ".join(text.split())[:LONGEST_TOLD]
    return Failed("passing", f"SageMaker reports: {short}" if short else "SageMaker reports a failure")


def _find(text: str) -> Failed | None:
    for brace in re.finditer(r"\{", text[:10_000]):
        try:
            found, _ = json.JSONDecoder().raw_decode(text, brace.start())
        except (ValueError, RecursionError):
            continue
        kind, message = found.get("kind"), found.get("message")
        if kind in KINDS and isinstance(message, str):
            return Failed(kind, message)
    return None


def _are_image_names(names: list[Any]) -> bool:
    return len(names) <= MOST_IMAGES and all(
        isinstance(name, str) and re.fullmatch(IMAGE_NAME, name) is not None for name in names
    )


def _moments(timings: Any) -> dict[str, Any]:
    if not isinstance(timings, dict):
        return {}
    return {
        name: moment
        for name, moment in timings.items()
        if isinstance(moment, int | float) and not isinstance(moment, bool)
    }
