"""The REST API as the command calls it."""

from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from sdfleet_cli.failures import CommandError

SECONDS = 60
REMEDIES = {
    401: "check --username and --password",
    403: "check --api-key, and that your role may create and update checkpoints",
    404: "check --url",
    429: "wait a minute and run the same command again",
}


class Api:
    """One sdfleet, called with an API key and as a user."""

    def __init__(self, url: str, api_key: str) -> None:
        if urlsplit(url).scheme not in {"http", "https"}:
            raise CommandError(f"{url} is no address: --url is like https://sdfleet.example.org")
        self._url = url.rstrip("/")
        self._session = requests.Session()
        self._session.headers["x-api-key"] = api_key
        again = Retry(
            total=4, connect=1, backoff_factor=0.5, status_forcelist=(502, 503, 504), allowed_methods=("GET",)
        )
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(max_retries=again))

    def sign_in(self, username: str, password: str) -> None:
        """Act as this user from now on."""
        token = self.call("POST", "/auth/token", {"username": username, "password": password})
        self._session.headers["Authorization"] = f"Bearer {token['access_token']}"

    def call(self, method: str, path: str, body: Any = None, **query: Any) -> dict[str, Any]:
        """The answer's `data`, or the members of an answer that has none. Raises CommandError."""
        try:
            answer = self._session.request(method, self._url + path, json=body, params=query, timeout=SECONDS)
        except requests.RequestException as error:
            raise CommandError(
                f"{self._url} does not answer ({type(error).__name__}): check --url, "
                "then run the same command again"
            ) from None
        try:
            content = answer.json()
        except ValueError:
            raise CommandError(
                f"{self._url} answers {answer.status_code} and no JSON: check that --url is an sdfleet"
            ) from None
        if not answer.ok:
            remedy = REMEDIES.get(answer.status_code)
            said = content.get("message", answer.reason)
            raise CommandError(f"{answer.status_code} {said}" + (f": {remedy}" if remedy else ""))
        return dict(content.get("data") or content)
