"""Keys to the next page."""

import base64
from datetime import UTC, datetime

import pytest

from services.common.errors import BadRequest
from services.common.paging import after, next_key

FOUND = [{"_id": str(number), "made": datetime(2026, 1, 1, 0, 0, number, tzinfo=UTC)} for number in (3, 2, 1)]


POISON = [
    '[1, "\\ud800"]',
    '["now", "x"]',
    '[{"$gt": 0}, "x"]',
    '[1, {"$gt": ""}]',
    "[NaN, 1]",
    '[-1e300, "x"]',
    '[1, "x", 2]',
    "[" * 300,
]


def key_of(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode()


def test_a_full_page_has_a_key_to_the_next() -> None:
    key = next_key(FOUND, 2, "made")
    assert after(key, "made") == {
        "made": {"$lte": FOUND[1]["made"]},
        "$or": [{"made": {"$lt": FOUND[1]["made"]}}, {"made": FOUND[1]["made"], "_id": {"$lt": "2"}}],
    }


def test_the_last_page_has_none() -> None:
    assert next_key(FOUND, 3, "made") is None
    assert after(None, "made") == {}


@pytest.mark.parametrize(
    "key", ["!", "e30=", "WzEsIHt9XQ==", "Wzk5OTk5OTk5OTk5OTk5OTk5OTksICJ4Il0=", "é", *map(key_of, POISON)]
)
def test_a_key_that_was_never_given_is_refused(key: str) -> None:
    with pytest.raises(BadRequest):
        after(key, "made")
