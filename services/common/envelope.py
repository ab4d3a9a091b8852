"""The one JSON shape of every answer: statusCode, message, data."""

import functools
from typing import Any

from flask import Response, jsonify
from marshmallow import Schema, fields


def answer(status: int, message: str, data: Any = None, **beside: Any) -> Response:
    """An answer in the envelope; `data` is left out when it is None."""
    body: dict[str, Any] = {"statusCode": status, "message": message}
    if data is not None:
        body["data"] = data
    response = jsonify(body | beside)
    response.status_code = status
    return response


def failure(
    status: int, message: str, errors: dict[str, Any] | None = None, headers: dict[str, str] | None = None
) -> Response:
    """A failure in the envelope; `errors` maps each field to its problems."""
    response = answer(status, message, **({"errors": errors} if errors else {}))
    response.headers.update(headers or {})
    if status >= 500:
        response.headers["Cache-Control"] = "no-store"
    return response


@functools.cache
def enveloped(data_schema: type[Schema] | fields.Field | None) -> type[Schema]:
    """The schema of an envelope around `data_schema`, for the OpenAPI document."""
    members: dict[str, Any] = {
        "statusCode": fields.Integer(required=True),
        "message": fields.String(required=True),
    }
    if data_schema is None:
        return Schema.from_dict(members, name="Envelope")
    if isinstance(data_schema, fields.Field):
        title = data_schema.metadata["title"]
        return Schema.from_dict(members | {"data": data_schema}, name=f"{title}Envelope")
    members["data"] = fields.Nested(data_schema)
    return Schema.from_dict(members, name=f"{data_schema.__name__}Envelope")
