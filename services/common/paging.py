"""Lists page by page: newest first, an opaque key to the next page."""

import base64
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from marshmallow import EXCLUDE, Schema

from services.common.errors import BadRequest
from services.common.fields import Text, Whole

LARGEST_PAGE = 1000


class PageQuery(Schema):
    """The paging parameters that every list takes."""

    class Meta:
        unknown = EXCLUDE

    limit = Whole(minimum=1, maximum=LARGEST_PAGE, load_default=LARGEST_PAGE)
    last_evaluated_key = Text(load_default=None, allow_none=True, max_length=512)


def after(key: str | None, moment_field: str) -> dict[str, Any]:
    """The query part for what comes after the page that ended with `key`, newest first.

    Raises BadRequest when the key was not made by `next_key`.
    """
    if not key:
        return {}
    try:
        epoch_ms, last_id = json.loads(base64.urlsafe_b64decode(key.encode()))
        moment = datetime.fromtimestamp(int(epoch_ms) / 1000, UTC)
        if not isinstance(last_id, str):
            raise ValueError
        last_id.encode()  # half a surrogate pair is no text that MongoDB takes
    except (ValueError, TypeError, OverflowError, OSError):
        raise BadRequest("last_evaluated_key is not one that this list has given") from None
    # The bound is said twice: an index is read from there on only when it stands outside of $or.
    return {
        moment_field: {"$lte": moment},
        "$or": [
            {moment_field: {"$lt": moment}},
            {moment_field: moment, "_id": {"$lt": last_id}},
        ],
    }


def next_key(found: Sequence[Mapping[str, Any]], limit: int, moment_field: str) -> str | None:
    """The key of the next page when this one is full, else None; `found` holds up to limit + 1 entries."""
    if len(found) <= limit:
        return None
    last = found[limit - 1]
    text = json.dumps([round(last[moment_field].timestamp() * 1000), last["_id"]])
    return base64.urlsafe_b64encode(text.encode()).decode()
