"""Audit entries: who did what to which resource from which address, and with what outcome.

The users service keeps them; the other services hand theirs over in the background.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from flask import Flask, Response, g, request

from services.common.errors import Unavailable
from services.common.identity import USER_AUDIENCE, access_of
from services.common.service_client import ServiceClient
from services.common.times import as_epoch, now

log = logging.getLogger(__name__)

CHANGING_METHODS = frozenset({"POST", "PUT", "PATCH", "DELETE"})
REFUSED = frozenset({401, 403, 429})
MOST_NAMES = 100
LONGEST_NAME = 200
LARGEST_BATCH = 500
WAITING_ENTRIES = 10_000
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0

Entry = dict[str, Any]


def concerning(names: Iterable[str], actor: str | None = None) -> None:
    """Say whom or what the current request changes, and who does it when that is not the caller."""
    g.audit_names = list(names)[:MOST_NAMES]
    if actor is not None:
        g.audit_actor = actor


def client_address() -> str:
    """The client's address, as the gateway saw it."""
    return request.headers.get("X-Forwarded-For") or request.remote_addr or ""


def audit_changes(app: Flask, keep: Callable[[Entry], None]) -> None:
    """Hand an entry to `keep` for every request of a client that changes something or tries to."""

    @app.after_request
    def note(response: Response) -> Response:
        if request.method not in CHANGING_METHODS or request.endpoint is None:
            return response
        audience, _ = access_of(app.view_functions[request.endpoint]) or (None, None)
        if audience == USER_AUDIENCE:
            keep(_entry(response.status_code))
        return response


def _entry(status: int) -> Entry:
    caller, rule = g.get("caller"), str(request.url_rule)
    names = g.get("audit_names") or [str(value) for value in (request.view_args or {}).values()]
    outcome = "done" if status < 400 else "refused" if status in REFUSED else "failed"
    return {
        "at": as_epoch(now()),
        "actor": g.get("audit_actor") or (caller.username if caller else None),
        "key_id": caller.key_id if caller else None,
        "action": f"{request.method} {rule}",
        "resource": rule.strip("/").split("/")[0],
        "names": [name[:LONGEST_NAME] for name in names],
        "address": client_address()[:LONGEST_NAME],
        "outcome": outcome,
        "status": status,
        "request_id": g.get("request_id"),
    }


class AuditSender:
    """Hands entries to the users service from a thread of its own; a request never waits for it.

    Entries wait in memory while users does not answer; the oldest are lost, and said to be, when too many do.
    """

    def __init__(self, users: ServiceClient) -> None:
        self._users = users
        self._waiting: queue.SimpleQueue[Entry] = queue.SimpleQueue()
        self._start = threading.Lock()
        self._thread: threading.Thread | None = None

    def __call__(self, entry: Entry) -> None:
        self._waiting.put(entry)
        with self._start:  # not earlier: gunicorn forks after the application is made
            if self._thread is None:
                self._thread = threading.Thread(target=self._send_for_ever, name="audit", daemon=True)
                self._thread.start()

    def _send_for_ever(self) -> None:
        while True:
            batch = [self._waiting.get()]
            while len(batch) < LARGEST_BATCH and not self._waiting.empty():
                batch.append(self._waiting.get())
            pause = FIRST_PAUSE_SECONDS
            while not self._sent(batch):
                time.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
                self._forget_the_oldest()

    def _sent(self, batch: list[Entry]) -> bool:
        try:
            self._users.call("/internal/audit", {"entries": batch})
        except Unavailable:
            return False
        return True

    def _forget_the_oldest(self) -> None:
        lost = self._waiting.qsize() - WAITING_ENTRIES
        for _ in range(lost):
            self._waiting.get()
        if lost > 0:
            log.error("audit entries are lost", extra={"count": lost})
