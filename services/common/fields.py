"""Marshmallow fields that complain in the sentences that clients of this API match on."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from marshmallow import EXCLUDE, Schema, ValidationError, fields

MISSING = "is missing"
JSON_TYPES = {
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    list: "array",
    dict: "object",
    type(None): "null",
}
LARGEST_INTEGER = 2**63 - 1  # what MongoDB can keep


def wrong_type(value: Any, *allowed: str) -> ValidationError:
    """The failure of a value of the wrong JSON type."""
    found = JSON_TYPES.get(type(value), type(value).__name__)
    return ValidationError(
        f"instance type ({found}) does not match any allowed primitive type (allowed: {_listed(allowed)})"
    )


def _listed(values: Sequence[str]) -> str:
    return json.dumps(list(values), ensure_ascii=False, separators=(",", ":"))


def _messages(json_type: str) -> dict[str, Any]:
    return {"required": MISSING, "null": str(wrong_type(None, json_type).messages[0])}


class Body(Schema):
    """A request body: unknown fields are ignored."""

    class Meta:
        unknown = EXCLUDE


class _Strict(fields.Field):
    json_type = "string"

    def __init__(self, **options: Any) -> None:
        super().__init__(error_messages=_messages(self.json_type), **options)


class Text(_Strict, fields.String):
    """A string with length limits and, when given, a closed list of values."""

    def __init__(
        self,
        *,
        min_length: int = 0,
        max_length: int = 4096,
        choices: Sequence[str] | None = None,
        **options: Any,
    ) -> None:
        self.min_length, self.max_length, self.choices = min_length, max_length, choices
        described: dict[str, Any] = {"maxLength": max_length}
        if min_length:
            described["minLength"] = min_length
        if choices:
            described["enum"] = list(choices)
        metadata = described | options.pop("metadata", {})
        super().__init__(metadata=metadata, **options)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        if not isinstance(value, str):
            raise wrong_type(value, "string")
        shown = value if len(value) <= 60 else value[:57] + "..."
        if len(value) < self.min_length:
            raise ValidationError(
                f'string "{shown}" is too short (length: {len(value)}, required minimum: {self.min_length})'
            )
        if len(value) > self.max_length:
            raise ValidationError(
                f'string "{shown}" is too long (length: {len(value)}, maximum allowed: {self.max_length})'
            )
        if self.choices is not None and value not in self.choices:
            raise ValidationError(
                f'instance value ("{shown}") not found in enum (possible values: {_listed(self.choices)})'
            )
        return value


class Whole(_Strict, fields.Integer):
    """A whole number with bounds; digits in a string count, as older clients send them."""

    json_type = "integer"

    def __init__(self, *, minimum: int = 0, maximum: int = LARGEST_INTEGER, **options: Any) -> None:
        self.minimum, self.maximum = minimum, maximum
        metadata = {"minimum": minimum, "maximum": maximum} | options.pop("metadata", {})
        super().__init__(metadata=metadata, **options)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise wrong_type(value, "integer")
        number = self._whole(value)
        if number is None:
            raise wrong_type(value, "integer")
        if number < self.minimum:
            raise ValidationError(
                f"numeric instance is lower than the required minimum "
                f"(minimum: {self.minimum}, found: {number})"
            )
        if number > self.maximum:
            raise ValidationError(
                f"numeric instance is greater than the required maximum "
                f"(maximum: {self.maximum}, found: {number})"
            )
        return number

    @staticmethod
    def _whole(value: float | str) -> int | None:
        if isinstance(value, str):
            digits = value.strip().removeprefix("-")
            return int(value) if digits.isascii() and digits.isdigit() and len(digits) <= 18 else None
        return int(value) if value == value and abs(value) != float("inf") and value == int(value) else None


class Flag(_Strict, fields.Boolean):
    """A boolean; the words true and false count, as older clients send them."""

    json_type = "boolean"

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> bool:
        if isinstance(value, bool):
            return value
        if isinstance(value, str) and value.lower() in {"true", "false"}:
            return value.lower() == "true"
        raise wrong_type(value, "boolean")


class Items(_Strict, fields.List):
    """An array with a least and a largest number of items."""

    json_type = "array"

    def __init__(
        self, inner: fields.Field, *, min_items: int = 0, max_items: int = 1000, **options: Any
    ) -> None:
        self.min_items, self.max_items = min_items, max_items
        metadata = {"minItems": min_items, "maxItems": max_items} | options.pop("metadata", {})
        fields.List.__init__(self, inner, error_messages=_messages("array"), metadata=metadata, **options)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> list[Any]:
        if not isinstance(value, list):
            raise wrong_type(value, "array")
        if len(value) < self.min_items:
            raise ValidationError(
                f"array is too short: must have at least {self.min_items} elements "
                f"but instance has {len(value)} elements"
            )
        if len(value) > self.max_items:
            raise ValidationError(
                f"array is too long: must have at most {self.max_items} elements "
                f"but instance has {len(value)} elements"
            )
        return super()._deserialize(value, attr, data, **kwargs)


class Object(_Strict, fields.Dict):
    """A JSON object of any members."""

    json_type = "object"

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> dict[Any, Any]:
        if not isinstance(value, Mapping):
            raise wrong_type(value, "object")
        return dict(super()._deserialize(value, attr, data, **kwargs))


class Part(fields.Nested):
    """A JSON object of a known shape."""

    def __init__(self, nested: Any, **options: Any) -> None:
        super().__init__(nested, error_messages=_messages("object"), **options)

    def _deserialize(
        self, value: Any, attr: str | None, data: Any, partial: Any = None, **kwargs: Any
    ) -> Any:
        if not isinstance(value, Mapping) and not self.many:
            raise wrong_type(value, "object")
        return super()._deserialize(value, attr, data, partial=partial, **kwargs)
