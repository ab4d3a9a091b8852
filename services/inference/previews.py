"""Small pictures of what is being made: kept beside the job's results, told to those who listen."""

import base64
import binascii
from typing import Any

from services.common.errors import BadRequest
from services.inference.errors import AttemptOver
from services.inference.parts import Parts

LARGEST_PREVIEW = 48 * 2**10  # bytes; an event holds it as text, which is a third longer
KINDS = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG\r\n\x1a\n": "image/png"}


class Previews:
    """One object for each job that asked for it, overwritten by the next; past attempts leave none."""

    def __init__(self, parts: Parts, lease_seconds: int) -> None:
        self._parts = parts
        self._lease_seconds = lease_seconds

    def take(self, job_id: str, worker_id: str, attempt: int, report: dict[str, Any]) -> None:
        """Keep and tell a preview; renews the lease. Raises AttemptOver, BadRequest."""
        picture, kind = read_picture(report["picture"])
        if not self._parts.attempts.is_held(job_id, worker_id, attempt):
            raise AttemptOver
        self._parts.storage.write_preview(job_id, picture, kind)
        place = {"step": report["step"], "image": report["image"]}
        # After the object: whoever sees the note can fetch it.
        renewed = self._parts.attempts.renew(
            job_id, worker_id, attempt, self._lease_seconds, {"preview": place}
        )
        if renewed is None:
            raise AttemptOver
        told = place | {"attempt": attempt, "media_type": kind, "picture": report["picture"]}
        self._parts.events.publish(job_id, {"preview": told})


def read_picture(text: str) -> tuple[bytes, str]:
    """The bytes of a base64 text, and what kind of picture they are. Raises BadRequest."""
    try:
        picture = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise BadRequest("picture is not base64") from None
    if len(picture) > LARGEST_PREVIEW:
        raise BadRequest(f"picture has {len(picture)} bytes: a preview has at most {LARGEST_PREVIEW}")
    for begin, kind in KINDS.items():
        if picture.startswith(begin):
            return picture, kind
    raise BadRequest("picture is neither a JPEG nor a PNG")
