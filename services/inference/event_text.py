"""Jobs as server-sent events (WHATWG HTML, section 9.2): what changed since a listener last heard."""

import json
from dataclasses import dataclass
from typing import Any

from services.inference.states import Status, shown

# A job as it stands: status, attempt, progress; from MongoDB also error and image_names.
Standing = dict[str, Any]
RECONNECT = b"retry: 1000\n\n"  # milliseconds after which a client that lost the connection comes back
HEARTBEAT = b": still there\n\n"
ENDED = "end."


@dataclass
class Told:
    """What a listener was told last."""

    status: str = ""
    attempt: int = 0
    progress: dict[str, Any] | None = None


def news(told: Told, standing: Standing, position: int | None = None) -> bytes:
    """The events that bring a listener up to date; empty when it is. `told` is brought up to date as well."""
    attempt = standing.get("attempt") or 0
    if attempt < told.attempt:  # a late word of an attempt that is over
        return b""
    text = b""
    if (standing["status"], attempt) != (told.status, told.attempt):
        told.status, told.attempt, told.progress = standing["status"], attempt, None
        text += _status_event(standing, attempt, position)
    progress = standing.get("progress")
    if progress and standing["status"] == Status.RUNNING and progress != told.progress:
        told.progress = progress
        version = f"{attempt}.{progress.get('image')}.{progress.get('step')}"
        text += _event("progress", version, progress | {"attempt": attempt})
    return text


def _status_event(standing: Standing, attempt: int, position: int | None) -> bytes:
    status = standing["status"]
    data = {"status": shown(status), "running": status == Status.RUNNING, "attempt": attempt}
    if position is not None:
        data["queue_position"] = position
    return _event("status", f"{attempt}.{status}", data)


def end(standing: Standing) -> bytes:
    """The last event of a job whose life is over."""
    status = shown(standing["status"])
    data = {
        "status": status,
        "error": standing.get("error"),
        "image_names": standing.get("image_names", []),
    }
    return _event("end", f"{ENDED}{status}", data)


def preview(data: dict[str, Any]) -> bytes:
    """A picture on its way, inside the event."""
    return _event("preview", None, data)


def _event(kind: str, version: str | None, data: dict[str, Any]) -> bytes:
    name = f"id: {version}\n" if version else ""
    return f"event: {kind}\n{name}data: {json.dumps(data)}\n\n".encode()
