"""Shapes of the users service's requests and answers."""

from datetime import UTC, datetime
from typing import Any

from marshmallow import Schema, ValidationError, fields, validates_schema

from services.common.fields import MISSING, Body, Items, Part, Text, Whole, wrong_type
from services.common.identity import PERMISSIONS
from services.common.paging import PageQuery
from services.common.times import as_text
from services.users.authentication import DELEGATE
from services.users.names import LONGEST_NAME, Name

NO_PAGE = "not_applicable"
HIDDEN_PASSWORD = "********"  # noqa: S105 - what every password is shown as
LONGEST_PASSWORD = 1024
LARGEST_RATE = 1_000_000
LATEST_SECOND = 250_000_000_000  # in the year 9892


class Moment(fields.Field):
    """A point in time: epoch seconds, or text in UTC; dumped as the API writes times."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> datetime:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise wrong_type(value, "string", "number")
        try:
            if not isinstance(value, str):
                return datetime.fromtimestamp(value, UTC)
            moment = datetime.fromisoformat(value)
        except (ValueError, OverflowError, OSError):
            raise ValidationError("this is no point in time, write YYYY-MM-DD HH:MM:SS in UTC") from None
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> str | None:
        return as_text(value)


class Password(Text):
    """A password; complaints about it never repeat it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(min_length=1, max_length=LONGEST_PASSWORD, **options)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        if isinstance(value, str) and len(value) > self.max_length:
            raise ValidationError(
                f"string is too long (length: {len(value)}, maximum allowed: {self.max_length})"
            )
        return super()._deserialize(value, attr, data, **kwargs)


def permissions(**options: Any) -> Items:
    """A list of permissions."""
    return Items(Text(choices=PERMISSIONS), max_items=len(PERMISSIONS) * 2, **options)


# Requests


class TokenRequest(Body):
    """A user name with a password, or a refresh token."""

    username = Text(min_length=1)
    password = Password()
    refresh_token = Text(min_length=1, max_length=512)

    @validates_schema
    def _complete(self, wanted: dict[str, Any], **_: Any) -> None:
        missing = {"username", "password"} - wanted.keys()
        if "refresh_token" not in wanted and missing:
            raise ValidationError({name: [MISSING] for name in sorted(missing)})


class Refresh(Body):
    refresh_token = Text(required=True, min_length=1, max_length=512)


class NewRole(Body):
    role_name = Name(required=True)
    permissions = permissions(required=True, min_items=1)
    creator = Text(required=True, max_length=LONGEST_NAME)


class RoleNames(Body):
    role_name_list = Items(Text(min_length=1), required=True, min_items=1)


class NewUser(Body):
    username = Name(required=True)
    password = Password(required=True)
    roles = Items(Text(min_length=1), required=True, min_items=1, max_items=50)
    creator = Text(required=True, max_length=LONGEST_NAME)
    permissions = permissions(load_default=list)


class UserNames(Body):
    user_name_list = Items(Text(min_length=1), required=True, min_items=1)


class PasswordChange(Body):
    old = Password(required=True)
    new = Password(required=True)


class MyNewApiKey(Body):
    name = Text(required=True, min_length=1, max_length=LONGEST_NAME)
    expires_at = Moment(load_default=None, allow_none=True)
    rate_limit = Whole(
        minimum=1,
        maximum=LARGEST_RATE,
        load_default=None,
        allow_none=True,
        metadata={"description": "requests per minute"},
    )


class NewApiKey(MyNewApiKey):
    username = Text(load_default=None, allow_none=True, min_length=1)
    scopes = Items(Text(choices=[DELEGATE]), load_default=list, max_items=10)


class ApiKeyIds(Body):
    api_key_id_list = Items(Text(min_length=1), required=True, min_items=1)


class Names(Body):
    usernames = Items(Text(), load_default=list)
    roles = Items(Text(), load_default=list)


class NewAuditEntry(Body):
    at = fields.Float(required=True)
    actor = Text(load_default=None, allow_none=True)
    key_id = Text(load_default=None, allow_none=True)
    action = Text(required=True)
    resource = Text(required=True)
    names = Items(Text(), load_default=list)
    address = Text(load_default=None, allow_none=True)
    outcome = Text(required=True, choices=["done", "refused", "failed"])
    status = Whole(required=True)
    request_id = Text(load_default=None, allow_none=True)


class NewAuditEntries(Body):
    entries = Items(Part(NewAuditEntry), required=True, min_items=1)


class RoleQuery(PageQuery):
    role = Text(load_default=None, max_length=200)


class UserQuery(PageQuery):
    username = Text(load_default=None, max_length=200)


class AuditQuery(PageQuery):
    actor = Text(load_default=None, max_length=200)
    action = Text(load_default=None, max_length=200)
    resource = Text(load_default=None, max_length=200)
    outcome = Text(load_default=None, max_length=200)
    name = Text(load_default=None, max_length=200)
    address = Text(load_default=None, max_length=200)
    since = Whole(load_default=None, maximum=LATEST_SECOND)
    until = Whole(load_default=None, maximum=LATEST_SECOND)


# Answers


class Issued(Schema):
    access_token = fields.String(required=True)
    token_type = fields.String(required=True)
    expires_in = fields.Integer(required=True)
    refresh_token = fields.String(required=True)


class IssuedEnvelope(Issued):
    """The tokens in `data`, as in every answer here, and beside it, where OAuth clients look."""

    statusCode = fields.Integer(required=True)
    message = fields.String(required=True)
    data = fields.Nested(Issued, required=True)


class Role(Schema):
    role_name = fields.String(attribute="_id", required=True)
    creator = fields.String(required=True)
    permissions = fields.List(fields.String(), required=True)


class Roles(Schema):
    roles = fields.List(fields.Nested(Role), required=True)
    last_evaluated_key = fields.String(allow_none=True)


class User(Schema):
    username = fields.String(attribute="_id", required=True)
    roles = fields.List(fields.String(), required=True)
    creator = fields.String(required=True)
    permissions = fields.List(fields.String(), required=True)
    password = fields.Constant(HIDDEN_PASSWORD)


class Users(Schema):
    users = fields.List(fields.Nested(User), required=True)
    previous_evaluated_key = fields.String(required=True)
    last_evaluated_key = fields.String(required=True)


class ApiKey(Schema):
    id = fields.String(attribute="_id", required=True)
    name = fields.String(required=True)
    prefix = fields.String(required=True)
    username = fields.String(allow_none=True)
    scopes = fields.List(fields.String(), required=True)
    rate_limit = fields.Integer(allow_none=True)
    creator = fields.String(required=True)
    created = Moment(required=True)
    expires_at = Moment(allow_none=True)
    last_used_at = Moment(allow_none=True)


class ApiKeys(Schema):
    api_keys = fields.List(fields.Nested(ApiKey), required=True)
    last_evaluated_key = fields.String(allow_none=True)


class MadeApiKey(ApiKey):
    """A key in the one answer that shows its secret; null when an earlier answer has shown it."""

    key = fields.String(required=True, allow_none=True)


class ApiKeyMade(Schema):
    api_key = fields.Nested(MadeApiKey, required=True)


class AuditEntry(Schema):
    id = fields.String(attribute="_id", required=True)
    time = Moment(attribute="at", required=True)
    actor = fields.String(allow_none=True)
    key_id = fields.String(allow_none=True)
    action = fields.String(required=True)
    resource = fields.String(required=True)
    names = fields.List(fields.String(), required=True)
    address = fields.String(allow_none=True)
    outcome = fields.String(required=True)
    status = fields.Integer(required=True)
    request_id = fields.String(allow_none=True)


class AuditEntries(Schema):
    entries = fields.List(fields.Nested(AuditEntry), required=True)
    last_evaluated_key = fields.String(allow_none=True)
