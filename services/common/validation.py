"""Request bodies: read as JSON objects, and their problems told in the API's sentences."""

import json
from typing import Any

from flask import Request
from marshmallow import fields
from webargs.flaskparser import FlaskParser

from services.common.errors import BadRequest, InvalidBody
from services.common.fields import LARGEST_INTEGER, MISSING

DEEPEST = 80  # MongoDB keeps up to 180 levels, of which the document around a body takes some


class BodyParser(FlaskParser):
    """Reads the body whatever its content type says, as existing clients need it."""

    DEFAULT_VALIDATION_STATUS = 400

    def load_json(self, req: Request, schema: Any) -> Any:
        try:
            body = json.loads(req.get_data(cache=True) or b"{}")
            _check_storable(body)
        except (ValueError, RecursionError):
            raise InvalidBody from None
        if not isinstance(body, dict):
            raise InvalidBody
        return body

    def load_querystring(self, req: Request, schema: Any) -> Any:
        for name, entry in schema.fields.items():
            asked = entry.data_key or name
            if not isinstance(entry, fields.List) and len(req.args.getlist(asked)) > 1:
                sentence = f"the query parameter {asked} is given more than once"
                raise BadRequest(sentence, errors={asked: [sentence]})
        return super().load_querystring(req, schema)


def _check_storable(value: Any, depth: int = 0) -> None:
    """Raise ValueError for what JSON can say and MongoDB cannot keep."""
    if depth > DEEPEST:
        raise ValueError("nested too deeply")
    if isinstance(value, str):
        value.encode("utf-8")  # lone surrogates raise UnicodeEncodeError, a ValueError
    elif isinstance(value, dict):
        if "$ref" in value and "$id" in value:
            raise ValueError("pymongo would read it back as a DBRef, which is no JSON")
        for key, member in value.items():
            if "\0" in key:
                raise ValueError("a NUL in a field's name")
            _check_storable(key)
            _check_storable(member, depth + 1)
    elif isinstance(value, list):
        for member in value:
            _check_storable(member, depth + 1)
    elif isinstance(value, int) and abs(value) > LARGEST_INTEGER:
        raise ValueError("a whole number of more than 64 bits")


def invalid(problems: dict[str, Any]) -> BadRequest:
    """The failure that tells marshmallow's nested messages: a sentence, and each field's problems."""
    missing: list[str] = []
    errors: dict[str, list[str]] = {}
    _flatten("", problems, missing, errors)
    if missing:
        sentence = (
            f"object has missing required properties ({json.dumps(sorted(missing), separators=(',', ':'))})"
        )
    else:
        sentence = next(iter(errors.values()))[0]
    return BadRequest(sentence, errors=errors)


def _flatten(path: str, problems: Any, missing: list[str], errors: dict[str, list[str]]) -> None:
    if isinstance(problems, dict):
        for name, inner in problems.items():
            _flatten(f"{path}.{name}" if path else str(name), inner, missing, errors)
        return
    errors[path] = [str(problem) for problem in problems]
    if MISSING in problems:
        missing.append(path.rsplit(".", 1)[-1])
