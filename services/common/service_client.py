"""Calls from one service to another."""

import logging
from typing import Any

import requests
from flask import g, has_request_context
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from services.common import tracing
from services.common.errors import Unavailable
from services.common.identity import HEADER, make_service_token
from services.common.metrics import INTERNAL_FAILURES

log = logging.getLogger(__name__)


class ServiceClient:
    """Posts JSON to another service's internal routes and returns its JSON.

    Internal routes may be called twice with the same outcome: broken connections are tried again.
    """

    def __init__(self, caller: str, base_url: str, service_secret: str, timeout: float = 10.0) -> None:
        self._caller = caller
        self._base_url = base_url.rstrip("/")
        self._secret = service_secret
        self._timeout = timeout
        self._session = requests.Session()
        self._session.trust_env = False  # never through a proxy
        retry = Retry(total=3, backoff_factor=0.1, status_forcelist=(502, 503, 504), allowed_methods=None)
        self._session.mount("http://", HTTPAdapter(max_retries=retry, pool_maxsize=32))

    def call(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The answer's JSON object. Raises Unavailable when the service does not answer properly."""
        headers = {HEADER: make_service_token(self._caller, self._secret)} | tracing.headers()
        if has_request_context():
            headers["X-Request-Id"] = g.get("request_id", "")
        try:
            response = self._session.post(
                self._base_url + path, json=body, headers=headers, timeout=self._timeout
            )
            response.raise_for_status()
            return response.json() if response.content else {}
        except (requests.RequestException, ValueError) as error:
            INTERNAL_FAILURES.labels(path).inc()
            log.warning("an internal call failed", extra={"path": path, "failure": type(error).__name__})
            raise Unavailable from None
