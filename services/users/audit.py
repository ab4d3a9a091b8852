"""The audit log: who did what to which resource from which address, and with what outcome."""

import logging
import uuid
from collections.abc import Iterable
from typing import Any

from flask import Flask, Response, g, request
from pymongo import DESCENDING
from pymongo.errors import PyMongoError

from services.common.mongo import Documents
from services.common.paging import after
from services.common.times import now

log = logging.getLogger(__name__)

CHANGING_METHODS = frozenset({"POST", "PUT", "PATCH", "DELETE"})
REFUSED = frozenset({401, 403, 429})
KEPT_SECONDS = 400 * 86400
MOST_NAMES = 100


class AuditLog:
    """An append-only collection: there is a way to add and to read, none to change."""

    def __init__(self, database: Documents) -> None:
        self._entries = database["audit"]

    def prepare(self) -> None:
        """Create the indexes."""
        newest_first = [("at", DESCENDING), ("_id", DESCENDING)]
        for field in ("actor", "names"):
            self._entries.create_index([(field, 1), *newest_first])
        self._entries.create_index(newest_first)
        self._entries.create_index("at", expireAfterSeconds=KEPT_SECONDS)

    def add(self, entry: dict[str, Any]) -> None:
        """Append an entry."""
        self._entries.insert_one({"_id": uuid.uuid4().hex, "at": now()} | entry)

    def entries(self, query: dict[str, Any], limit: int, key: str | None) -> list[dict[str, Any]]:
        """Entries newest first; up to limit + 1."""
        matching = {"$and": [query, after(key, "at")]}
        order = [("at", DESCENDING), ("_id", DESCENDING)]
        return list(self._entries.find(matching).sort(order).limit(limit + 1))


def concerning(names: Iterable[str], actor: str | None = None) -> None:
    """Say whom or what the current request changes, and who does it when that is not the caller."""
    g.audit_names = list(names)[:MOST_NAMES]
    if actor is not None:
        g.audit_actor = actor


def client_address() -> str:
    """The client's address, as the gateway saw it."""
    return request.headers.get("X-Forwarded-For") or request.remote_addr or ""


def audit_changes(app: Flask, audit_log: AuditLog) -> None:
    """Write an entry for every request that changes something or tries to."""

    @app.after_request
    def write(response: Response) -> Response:
        rule = str(request.url_rule or "")
        if request.method not in CHANGING_METHODS or not rule or rule.startswith("/internal"):
            return response
        try:
            audit_log.add(_entry(rule, response.status_code))
        except PyMongoError as error:
            log.error("an audit entry is lost", extra={"route": rule, "failure": type(error).__name__})
        return response


def _entry(rule: str, status: int) -> dict[str, Any]:
    caller = g.get("caller")
    outcome = "done" if status < 400 else "refused" if status in REFUSED else "failed"
    return {
        "actor": g.get("audit_actor") or (caller.username if caller else None),
        "key_id": caller.key_id if caller else None,
        "action": f"{request.method} {rule}",
        "resource": rule.strip("/").split("/")[0],
        "names": g.get("audit_names", []),
        "address": client_address(),
        "outcome": outcome,
        "status": status,
        "request_id": g.get("request_id"),
    }
