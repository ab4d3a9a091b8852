"""Sending one event to a webhook: signed as Standard Webhooks says, to public addresses only.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import base64
import hashlib
import hmac
import json
import time
from dataclasses import dataclass
from typing import Any

import requests

from services.common.guard import GuardedSession, RefusedAddress

LONGEST_ATTEMPT_SECONDS = 15.0
TIMEOUT = (5.0, 10.0)
GONE = 410  # the receiver wants no more of it


@dataclass(frozen=True)
class Attempt:
    """How it went: the receiver's status, or why there is none."""

    status: int | None = None
    error: str | None = None
    ms: int = 0

    @property
    def arrived(self) -> bool:
        """Whether the receiver took it."""
        return self.status is not None and 200 <= self.status < 300

    @property
    def gone(self) -> bool:
        """Whether the receiver wants no more of it."""
        return self.status == GONE


class Sender:
    """Posts events; redirects are not followed, and nothing of the answer but its status is read."""

    def __init__(self, allowed_hosts: tuple[str, ...]) -> None:
        self._allowed_hosts = allowed_hosts

    def send(self, url: str, secret: str, event_id: str, body: dict[str, Any]) -> Attempt:
        """One attempt."""
        text = json.dumps(body).encode()
        headers = signed_headers(secret, event_id, int(time.time()), text)
        began = time.monotonic()
        status, error = None, None
        try:
            with GuardedSession(self._allowed_hosts) as session, session.at_most(LONGEST_ATTEMPT_SECONDS):
                answer = session.post(
                    url, data=text, headers=headers, timeout=TIMEOUT, allow_redirects=False, stream=True
                )
                status = answer.status_code
        except RefusedAddress as reason:
            error = str(reason)
        except (requests.RequestException, OSError, ValueError) as failure:
            error = f"no answer ({type(failure).__name__})"
        return Attempt(status, error, round((time.monotonic() - began) * 1000))


def signed_headers(secret: str, event_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers of an event; `secret` is `whsec_` and base64, `timestamp` epoch seconds."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    content = f"{event_id}.{timestamp}.".encode() + body
    signature = base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode()
    return {
        "Content-Type": "application/json",
        "User-Agent": "sdfleet-webhooks",
        "webhook-id": event_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{signature}",
    }
