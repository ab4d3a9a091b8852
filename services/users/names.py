"""Names of users and roles: what they may hold, and when two of them look the same."""

import unicodedata
from typing import Any

from marshmallow import ValidationError

from services.common.fields import Text

LONGEST_NAME = 64
# Letters, marks, digits, punctuation, symbols; of the spaces only the common one.
ALLOWED_CATEGORIES = frozenset("LMNPS")
# Letters of other scripts that most fonts draw like a Latin one (Unicode TR 39, the common cases).
LOOK_ALIKES = str.maketrans(
    "аеорсухіјѕԁһԛԝкмтвнгѵӏαορνικτυχεηβγωıɡɑ",
    "aeopcyxijsdhqwkmtbhrvlaopviktuxenbywiga",
)


def skeleton(name: str) -> str:
    """What a reader sees of a name: two names with one skeleton would be mistaken for each other."""
    plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return " ".join(plain.translate(LOOK_ALIKES).split())


class Name(Text):
    """The name of a user or a role: 1 to 64 visible characters."""

    def __init__(self, **options: Any) -> None:
        super().__init__(min_length=1, max_length=LONGEST_NAME, **options)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        name = unicodedata.normalize("NFC", super()._deserialize(value, attr, data, **kwargs))
        if name != name.strip():
            raise ValidationError("a name neither begins nor ends with a space")
        if any(sign != " " and unicodedata.category(sign)[0] not in ALLOWED_CATEGORIES for sign in name):
            raise ValidationError("a name holds visible characters only")
        return name
