"""Each API key's own limit of requests per minute, counted in Redis over all services together."""

from flask import Flask, g
from flask_limiter import Limiter


class _KeysLimiter(Limiter):
    """Leaves requests of unlimited keys alone.

    To find out that there is no limit takes Flask-Limiter a third of a trivial request's time. Should it call
    its check by another name one day, that time is all that is lost.
    """

    def _check_request_limit(self, callable_name: str | None = None, in_middleware: bool = True) -> None:
        if _rate_limit():
            super()._check_request_limit(callable_name, in_middleware)


def limit_keys(app: Flask, redis_url: str) -> None:
    """Refuse with 429 what is over the `rate_limit` that the caller's internal token names.

    The token is what every service verifies, so that no cache before it lifts the limit. Without Redis each
    process counts for itself.
    """
    _KeysLimiter(
        key_func=_key_id,
        app=app,
        application_limits=[lambda: f"{_rate_limit()} per minute"],
        application_limits_exempt_when=lambda: not _rate_limit(),
        storage_uri=redis_url,
        storage_options={"socket_connect_timeout": 1, "socket_timeout": 1},
        strategy="moving-window",
        key_prefix="sdfleet-keys",
        headers_enabled=True,
        in_memory_fallback_enabled=True,
    )


def _key_id() -> str:
    return str(g.caller.key_id)


def _rate_limit() -> int:
    caller = g.get("caller")
    return int(caller.claims.get("rate_limit") or 0) if caller and caller.key_id else 0
