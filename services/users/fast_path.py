"""The gateway's question on every request, answered before Flask: a hundred microseconds, not a thousand."""

import logging
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

from pymongo.errors import PyMongoError

from services.users.authentication import Authenticator, Presented

log = logging.getLogger(__name__)

# path -> whether an identity is needed beside the key
PATHS = {"/internal/authenticate": True, "/internal/authenticate-key": False}

WsgiApp = Callable[[dict[str, Any], Any], Iterable[bytes]]


class AuthenticateFast:
    """WSGI middleware for `GET /internal/authenticate` and `…/authenticate-key`.

    Answers 200 with `X-Internal-Token`, 401, 403, or 503 when MongoDB does not answer; no bodies.
    """

    def __init__(self, app: WsgiApp, authenticator: Authenticator) -> None:
        self._app = app
        self._authenticator = authenticator

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        identity_needed = PATHS.get(environ.get("PATH_INFO", ""))
        if identity_needed is None or environ.get("REQUEST_METHOD") != "GET":
            return self._app(environ, start_response)
        status, headers = self._judge(environ, identity_needed)
        start_response(f"{status} {HTTPStatus(status).phrase}", [("Content-Length", "0"), *headers])
        return ()

    def _judge(self, environ: dict[str, Any], identity_needed: bool) -> tuple[int, list[tuple[str, str]]]:
        presented = Presented(
            environ.get("HTTP_X_API_KEY", ""),
            environ.get("HTTP_AUTHORIZATION", ""),
            environ.get("HTTP_USERNAME", ""),
        )
        try:
            verdict = self._authenticator.judge(presented, identity_needed)
        except PyMongoError as error:
            log.warning("no verdict", extra={"failure": type(error).__name__})
            return 503, []
        return verdict.status, [("X-Internal-Token", verdict.token)] if verdict.token else []
