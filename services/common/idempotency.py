"""Repeats of creating calls: `Idempotency-Key` makes the id of what is created, so that it is created once.

No answer is stored: a process that dies after the insert has still created the one thing that a repeat finds.
"""

import hashlib
import uuid
from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import count
from typing import Any

from flask import request
from pymongo.errors import DuplicateKeyError

from services.common.errors import BadRequest
from services.common.identity import current_caller
from services.common.times import now

REMEMBERED = timedelta(hours=24)
LONGEST_KEY = 255


def create_once(
    create: Callable[[str], Any], find: Callable[[str], dict[str, Any] | None], created_at: str = "created_at"
) -> Any:
    """What `create(id)` makes; for a repeat within 24 h what `find(id)` knows of the first call.

    `create` inserts under the id and raises DuplicateKeyError when it is taken; `find` gives the record with
    its time of creation, None when the record is hidden or gone.
    """
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return create(str(uuid.uuid4()))
    if not 0 < len(key) <= LONGEST_KEY:
        raise BadRequest(f"Idempotency-Key must have 1 to {LONGEST_KEY} characters")
    for use in count():
        made = _id_of(key, use)
        first = find(made)
        if first is not None and _recent(first[created_at]):
            return first
        if first is None:
            try:
                return create(made)
            except DuplicateKeyError:
                # A twin was quicker, or the record is there but hidden: then the key is used anew.
                first = find(made)
                if first is not None and _recent(first[created_at]):
                    return first
    raise AssertionError("count() does not end")


def _id_of(key: str, use: int) -> str:
    text = "\0".join((current_caller().name, request.method, request.path, key, str(use)))
    return str(uuid.UUID(bytes=hashlib.sha256(text.encode()).digest()[:16], version=4))


def _recent(moment: datetime) -> bool:
    return moment > now() - REMEMBERED
