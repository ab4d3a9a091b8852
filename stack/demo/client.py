"""A small client of the public REST API, written as its users would write one."""

from dataclasses import dataclass
from typing import Any

import requests

from stack.failures import StackError

SECONDS = 60


class DemoFailed(StackError):
    """A step did not work; the message says which and what was answered."""


@dataclass(frozen=True)
class Target:
    """The sdfleet to talk to, and its administrator."""

    url: str
    api_key: str
    username: str
    password: str


class Client:
    """Calls the API with a key and, once signed in, as a user."""

    def __init__(self, url: str, api_key: str) -> None:
        self._url = url.rstrip("/")
        self._session = requests.Session()
        self._session.headers["x-api-key"] = api_key

    def sign_in(self, username: str, password: str) -> None:
        """Act as this user from now on."""
        token = self.call("POST", "/auth/token", {"username": username, "password": password})
        self._session.headers["Authorization"] = f"Bearer {token['access_token']}"

    def call(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        """The `data` of the answer. Raises DemoFailed with the answer's message when it is not 2xx."""
        try:
            answer = self._session.request(method, self._url + path, json=body, params=query, timeout=SECONDS)
        except requests.RequestException as error:
            raise DemoFailed(f"{method} {path} got no answer: {error}") from error
        if not answer.ok:
            raise DemoFailed(f"{method} {path} answered {answer.status_code}: {_message(answer)}")
        return answer.json().get("data") if answer.content else None


def put(url: str, content: bytes) -> str:
    """PUT to a presigned URL; the ETag of what was stored."""
    answer = _from_storage("PUT", url, content)
    return answer.headers["ETag"]


def get(url: str) -> bytes:
    """GET from a presigned URL."""
    return _from_storage("GET", url, None).content


def _from_storage(method: str, url: str, content: bytes | None) -> requests.Response:
    place = url.split("?")[0]  # the rest is a credential
    try:
        answer = requests.request(method, url, data=content, timeout=SECONDS)
    except requests.RequestException as error:
        raise DemoFailed(f"{method} {place} got no answer ({type(error).__name__})") from None
    if not answer.ok:
        raise DemoFailed(f"{method} {place} answered {answer.status_code}: {answer.text[:300]}")
    return answer


def _message(answer: requests.Response) -> str:
    try:
        body = answer.json()
        return " ".join(str(body[name]) for name in ("message", "errors") if body.get(name))
    except (ValueError, AttributeError):
        return answer.text[:300]
