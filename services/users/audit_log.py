"""The audit log: an append-only collection."""

import logging
import uuid
from datetime import UTC, datetime
from typing import Any

from pymongo import DESCENDING, IndexModel
from pymongo.errors import PyMongoError

from services.common.audit import Entry
from services.common.indexes import ensure_indexes
from services.common.mongo import Documents
from services.common.paging import after

log = logging.getLogger(__name__)

KEPT_SECONDS = 400 * 86400


class AuditLog:
    """There is a way to add and to read entries, none to change them."""

    def __init__(self, database: Documents) -> None:
        self._entries = database["audit"]

    def prepare(self) -> None:
        """Create the indexes."""
        newest_first = [("at", DESCENDING), ("_id", DESCENDING)]
        ensure_indexes(
            self._entries,
            [
                IndexModel([("actor", 1), *newest_first]),
                IndexModel([("names", 1), *newest_first]),
                IndexModel(newest_first),
                IndexModel("at", expireAfterSeconds=KEPT_SECONDS),
            ],
        )

    def add(self, entries: list[Entry]) -> None:
        """Append entries, whose times are epoch seconds."""
        self._entries.insert_many(
            [
                entry | {"_id": uuid.uuid4().hex, "at": datetime.fromtimestamp(entry["at"], UTC)}
                for entry in entries
            ]
        )

    def add_own(self, entry: Entry) -> None:
        """Append an entry of this service; what it tells of has happened, so a failure is only logged."""
        try:
            self.add([entry])
        except PyMongoError as error:
            log.error("an audit entry is lost", extra={"failure": type(error).__name__})

    def entries(self, query: dict[str, Any], limit: int, key: str | None) -> list[dict[str, Any]]:
        """Entries newest first; up to limit + 1."""
        matching = {"$and": [query, after(key, "at")]}
        order = [("at", DESCENDING), ("_id", DESCENDING)]
        return list(self._entries.find(matching).sort(order).limit(limit + 1))
