"""The Flask application that every service starts from: errors, request ids, logs, health, OpenAPI."""

import json
import logging
import math
import re
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from botocore.exceptions import ConnectionError as S3ConnectionError
from botocore.exceptions import HTTPClientError
from flask import Flask, Response, g, request
from flask.json.provider import DefaultJSONProvider
from flask_smorest import Api, Blueprint
from marshmallow import Schema
from marshmallow.fields import Field
from pymongo.errors import ConnectionFailure
from redis.exceptions import ConnectionError as RedisConnectionError
from werkzeug.exceptions import HTTPException

from services.common import tracing
from services.common.envelope import answer, enveloped, failure
from services.common.errors import ApiError, Unavailable
from services.common.identity import Authentication, guard_routes, open_to_all
from services.common.metrics import count_request
from services.common.rate_limits import limit_keys
from services.common.validation import BodyParser, invalid

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 32 * 2**20
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
QUIET_PATHS = frozenset({"/healthz", "/readyz"})

Check = Callable[[], Any]


class ServiceBlueprint(Blueprint):
    """A blueprint whose bodies and answers follow the API's rules."""

    ARGUMENTS_PARSER = BodyParser()

    def answers(
        self,
        status: int,
        data: type[Schema] | Field | None = None,
        message: str = "OK",
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """The route answers `status` with what its view returns, dumped by `data`, in the envelope.

        A field in place of a schema is for data that is no object; it goes out as the view returns it. A view
        that returns a finished Response (another status, an empty 204) is left alone.
        """
        shape = data() if isinstance(data, type) else None

        def decorate(view: Callable[..., Any]) -> Callable[..., Any]:
            def enveloped_view(*args: Any, **kwargs: Any) -> Response:
                result = view(*args, **kwargs)
                if isinstance(result, Response):
                    return result
                if status == 204:
                    return Response(status=204)
                if isinstance(data, Field):
                    return answer(status, message, result)
                return answer(status, message, shape.dump(result) if shape is not None else None)

            enveloped_view.__dict__.update(view.__dict__)
            enveloped_view.__name__, enveloped_view.__doc__ = view.__name__, view.__doc__
            documented: Callable[..., Any] = (
                self.response(status)(enveloped_view)
                if status == 204
                else (self.response(status, enveloped(data))(enveloped_view))
            )
            return documented

        return decorate


class FiniteJSON(DefaultJSONProvider):
    """JSON answers without NaN and Infinity, which clients send and no strict reader takes."""

    sort_keys = False

    def dumps(self, obj: Any, **kwargs: Any) -> str:
        try:
            return super().dumps(obj, allow_nan=False, **kwargs)
        except ValueError:
            return super().dumps(_finite(obj), allow_nan=False, **kwargs)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(member) for key, member in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(member) for member in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class _ServiceApi(Api):
    """Leaves error handling to the one handler below."""

    def _register_error_handlers(self, *_: Any, **__: Any) -> None:
        return None


def make_web_app(
    service: str,
    authentication: Authentication,
    blueprints: list[Blueprint],
    ready: Mapping[str, Check],
    rate_limits: str = "",
) -> Flask:
    """A Flask application with everything that all services share.

    `ready` names the parts that `/readyz` checks; a check raises when its part does not answer.
    `rate_limits` is the Redis URL where requests of limited API keys are counted; empty: no limits.
    """
    app = Flask(service, static_folder=None)
    app.json = FiniteJSON(app)
    app.url_map.strict_slashes = False
    app.config |= {
        "MAX_CONTENT_LENGTH": MAX_BODY_BYTES,
        "API_TITLE": f"sdfleet {service}",
        "API_VERSION": "1.4.0",
        "OPENAPI_VERSION": "3.0.3",
        "OPENAPI_URL_PREFIX": "/internal",
        "OPENAPI_JSON_PATH": "openapi.json",
    }
    tracing.trace_requests(app, service)
    _log_requests(app, service)
    _render_failures(app)
    guard_routes(app, authentication)
    if rate_limits:
        limit_keys(app, rate_limits)
    _answer_health(app, ready)
    api = _ServiceApi(app)
    _publish_document(app)
    for blueprint in blueprints:
        api.register_blueprint(blueprint)
    return app


def _publish_document(app: Flask) -> None:
    """Open the OpenAPI document; flask-smorest serves it by a bound method, which takes no attributes."""
    serve = app.view_functions["api-docs.openapi_json"]

    @open_to_all
    def openapi_json() -> Any:
        return serve()

    app.view_functions["api-docs.openapi_json"] = openapi_json


def _log_requests(app: Flask, service: str) -> None:
    requests_log = logging.getLogger(f"sdfleet.{service}.requests")

    @app.before_request
    def begin() -> None:
        offered = request.headers.get("X-Request-Id", "")
        g.request_id = offered if REQUEST_ID.fullmatch(offered) else uuid.uuid4().hex
        g.began = time.perf_counter()
        tracing.begin_request(request.path, g.request_id)

    @app.after_request
    def end(response: Response) -> Response:
        response.headers["X-Request-Id"] = g.get("request_id", "")
        if request.path not in QUIET_PATHS:
            caller, route = g.get("caller"), str(request.url_rule or "unknown")
            seconds = time.perf_counter() - g.get("began", time.perf_counter())
            count_request(service, request.method, route, response.status_code, seconds)
            requests_log.info(
                "request",
                extra={
                    "method": request.method,
                    "route": route,
                    "status": response.status_code,
                    "ms": round(seconds * 1000, 1),
                    "caller": caller and (caller.username or caller.claims.get("iss")),
                },
            )
        return response


def _render_failures(app: Flask) -> None:
    @app.errorhandler(ApiError)
    def named(error: ApiError) -> Response:
        return failure(error.status, error.message, error.errors, error.headers)

    @app.errorhandler(HTTPException)
    def of_http(error: HTTPException) -> Response:
        problems = getattr(error, "data", None) or {}
        if error.code in {400, 422} and "messages" in problems:
            flat = {name: inner for part in problems["messages"].values() for name, inner in part.items()}
            return named(invalid(flat))
        headers = (
            {"Allow": error.get_headers()[1][1]} if error.code == 405 and len(error.get_headers()) > 1 else {}
        )
        return failure(error.code or 500, error.name, headers=headers)

    @app.errorhandler(ConnectionFailure)
    @app.errorhandler(S3ConnectionError)
    @app.errorhandler(HTTPClientError)
    @app.errorhandler(RedisConnectionError)
    def unavailable(error: Exception) -> Response:
        log.warning("a part does not answer", extra={"part": type(error).__module__})
        return named(Unavailable())

    @app.errorhandler(Exception)
    def unknown(error: Exception) -> Response:
        log.error("unexpected failure", exc_info=error)
        return failure(500, "Internal Server Error")


def _answer_health(app: Flask, ready: Mapping[str, Check]) -> None:
    @app.get("/healthz")
    @open_to_all
    def healthz() -> Response:
        """The process answers."""
        return answer(200, "ok")

    @app.get("/readyz")
    @open_to_all
    def readyz() -> Response:
        """Every part that this service needs answers."""
        broken: dict[str, Any] = {}
        for part, check in ready.items():
            try:
                check()
            except Exception as error:
                broken[part] = type(error).__name__
        if broken:
            return failure(503, "not ready", errors=broken)
        return answer(200, "ready")


def read_json_object(text: str | bytes) -> dict[str, Any] | None:
    """A JSON object that may hold Infinity and NaN; None when the text is something else."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
