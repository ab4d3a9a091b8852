"""Who schemathesis is: an administrator whom its own requests may delete, lock out or rob of the API key.

The API's answers tell it real names and ids, and it sends them again. What was lost is put back before the
next request, so that a run does not end in refusals.
"""

import zlib
from collections.abc import Mapping
from typing import Any

import requests
import schemathesis
from schemathesis.generation.meta import CoverageScenario

from services.common.mongo import open_database
from services.common.settings import read_settings
from services.users.app import make_parts
from services.users.config import Config
from services.users.first_start import _add_first_key, reset_administrator
from services.users.names import LONGEST_NAME
from services.users.repository import DEFAULT_ROLE
from services.users.schemas import LONGEST_PASSWORD
from tests.users.driver import ADMIN, ADMIN_KEY, ADMIN_PASSWORD

URL = "FUZZ_URL"  # names the environment variable
LOST = {401, 403}


class Identity:
    """The administrator's headers."""

    def __init__(self, url: str) -> None:
        config = read_settings(Config)
        self._url = url
        self._made = make_parts(config, open_database(config.mongo, "users"))
        self._were: set[str] = set()
        self._headers = self._signed_in()
        self._intact = True

    def headers(self) -> dict[str, str]:
        """Headers that were good a moment ago."""
        if not self._intact:
            self._headers = self._signed_in()
            self._intact = True
        return self._headers

    def owns(self, headers: Mapping[str, str]) -> bool:
        """Whether the headers are the identity's, as it is or was; not those that schemathesis invents."""
        return headers.get("Authorization") in self._were and headers.get("x-api-key") == ADMIN_KEY

    def heard(self, status: int) -> None:
        """A refusal: make sure that the identity is not what was refused."""
        if status in LOST and not self._is_good():
            self._intact = False

    def _is_good(self) -> bool:
        return requests.get(f"{self._url}/roles?limit=1", headers=self._headers, timeout=10).ok

    def _signed_in(self) -> dict[str, str]:
        reset_administrator(ADMIN, ADMIN_PASSWORD, self._made.repository, self._made.passwords)
        _add_first_key(self._made.credentials, ADMIN_KEY)
        body = {"username": ADMIN, "password": ADMIN_PASSWORD}
        key = {"x-api-key": ADMIN_KEY}
        answer = requests.post(f"{self._url}/auth/token", json=body, headers=key, timeout=10)
        answer.raise_for_status()
        bearer = f"Bearer {answer.json()['access_token']}"
        self._were.add(bearer)
        return key | {"Authorization": bearer}


def install(url: str) -> None:
    """Give every request of this process of schemathesis the identity."""
    identity = Identity(url)

    @schemathesis.auth(refresh_interval=None)
    class _Headers:
        def get(self, case: Any, context: Any) -> dict[str, str]:
            return identity.headers()

        def set(self, case: Any, headers: dict[str, str], context: Any) -> None:
            case.headers.update(headers)

    @schemathesis.hook
    def before_call(context: Any, case: Any, **_: Any) -> None:
        """Cases are made long before they are sent: those with the identity get it as it is now."""
        if identity.owns(case.headers):
            case.headers.update(identity.headers())
        elif _leaves_out_authorization(case):
            # schemathesis wants 401 here, and invents a key beside it, which is judged first: 403.
            case.headers["x-api-key"] = ADMIN_KEY

    @schemathesis.hook
    def map_body(context: Any, body: Any) -> Any:
        return with_what_exists(context.operation.label, body)

    @schemathesis.hook
    def after_call(context: Any, case: Any, response: Any) -> None:
        if case.operation.path != "/auth/token":
            identity.heard(response.status_code)


def with_what_exists(operation: str, body: Any) -> Any:
    """Half of the bodies that a rule would refuse, with what it asks for; what is wrong stays wrong."""
    if not isinstance(body, dict) or zlib.crc32(repr(body).encode("utf-8", "backslashreplace")) % 2:
        return body
    known: dict[str, Any] = {}
    if operation in {"POST /users", "POST /roles"} and _is_text(body.get("creator"), LONGEST_NAME):
        known["creator"] = ADMIN
    if operation == "POST /users" and isinstance(body.get("roles"), list) and 0 < len(body["roles"]) <= 50:
        known["roles"] = [DEFAULT_ROLE if _is_text(role) and role else role for role in body["roles"]]
    if operation == "PUT /users/me/password" and _is_text(body.get("old"), LONGEST_PASSWORD) and body["old"]:
        known["old"] = ADMIN_PASSWORD
    return body | known


def _is_text(value: Any, longest: int = 4096) -> bool:
    return isinstance(value, str) and len(value) <= longest


def _leaves_out_authorization(case: Any) -> bool:
    planned = case.meta.phase.data if case.meta else None
    return (
        getattr(planned, "parameter", None) == "Authorization"
        and getattr(planned, "scenario", None) == CoverageScenario.MISSING_PARAMETER
    )
