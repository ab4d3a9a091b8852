"""Failures that every service can answer with; each service adds its own in its errors.py."""

from typing import Any


class ApiError(Exception):
    """A failure with an HTTP status and a sentence for the client."""

    status = 500
    message = "Internal Server Error"

    def __init__(
        self,
        message: str | None = None,
        errors: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message or self.message)
        self.message = message or self.message
        self.errors = errors
        self.headers = headers or {}


class BadRequest(ApiError):
    """The request cannot be honoured as it is."""

    status = 400
    message = "Bad Request"


class InvalidBody(BadRequest):
    """The body is not a JSON object that can be stored."""

    message = "Invalid request body"


class Unauthorized(ApiError):
    """No identity, or not a valid one."""

    status = 401
    message = "Unauthorized"


class Forbidden(ApiError):
    """The caller lacks the right."""

    status = 403
    message = "Forbidden"


class NotFound(ApiError):
    """There is no such thing, or the caller may not see it."""

    status = 404
    message = "Not Found"


class Conflict(ApiError):
    """The thing is not in a state that allows this."""

    status = 409
    message = "Conflict"


class Unavailable(ApiError):
    """A part that this needs does not answer now."""

    status = 503
    message = "Service temporarily unavailable, please try again"

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message, headers={"Retry-After": "2"})
