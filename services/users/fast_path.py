"""The gateway's question on every request: answered before Flask, and from memory before gunicorn's threads.

Both ways answer alike; the second only where the verdict is known, on a kept connection.
"""

import logging
import re
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

from pymongo.errors import PyMongoError

from services.users import metrics
from services.users.authentication import Authenticator, Presented, Verdict

log = logging.getLogger(__name__)

# path -> whether an identity is needed beside the key
PATHS = {"/internal/authenticate": True, "/internal/authenticate-key": False}

# The whole of a request that was not cut: a head and no body.
QUESTION = re.compile(rb"GET (/internal/authenticate(?:-key)?) HTTP/1\.1\r\n((?:[^\r\n]+\r\n)+)\r\n")
REASONS = {status: f"{status} {HTTPStatus(status).phrase}" for status in (200, 401, 403)}
BODY_HEADERS = frozenset({b"content-length", b"transfer-encoding", b"expect", b"upgrade", b"connection"})

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
        metrics.JUDGED[status].inc()
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


class AnswerFromMemory:
    """The same question, for services.common.worker: answered when the verdict is remembered, else None."""

    def __init__(self, authenticator: Authenticator) -> None:
        self._authenticator = authenticator

    def __call__(self, request: bytes) -> bytes | None:
        question = QUESTION.fullmatch(request)
        if question is None:
            return None
        headers: dict[bytes, bytes] = {}
        for line in question[2].split(b"\r\n")[:-1]:
            name, _, value = line.partition(b":")
            name = name.lower()
            if name in headers or name in BODY_HEADERS or not name.replace(b"-", b"").isalnum():
                return None  # gunicorn knows what to make of it
            headers[name] = value.strip(b" \t")
        presented = Presented(
            *(
                headers.get(name, b"").decode("latin-1")
                for name in (b"x-api-key", b"authorization", b"username")
            )
        )
        verdict = self._authenticator.remembered(presented, PATHS[question[1].decode()])
        if verdict is None:
            return None
        metrics.REMEMBERED[verdict.status].inc()
        return _whole_answer(verdict)


def _whole_answer(verdict: Verdict) -> bytes:
    token = f"X-Internal-Token: {verdict.token}\r\n" if verdict.token else ""
    return f"HTTP/1.1 {REASONS[verdict.status]}\r\nContent-Length: 0\r\n{token}\r\n".encode("latin-1")
