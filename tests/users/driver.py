"""Drives the users service as the gateway does: first "who is this?", then the request itself."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flask import Flask
from werkzeug.test import TestResponse

from services.common.settings import read_settings
from services.users.app import create_app
from services.users.config import Config

ADMIN = "admin"
ADMIN_PASSWORD = "the first administrator's password"
ADMIN_KEY = "first-key-" + "0123456789abcdef" * 2
ADDRESS = "198.51.100.7"
CHEAP_PASSWORDS = {"PASSWORD_MEMORY_KIB": "64", "PASSWORD_ROUNDS": "1", "PASSWORD_LANES": "1"}
KEY_ONLY = {"/ping", "/auth/token"}


def users_config(environment: dict[str, str], **more: str) -> Config:
    """The configuration of a users service for tests: cheap passwords, no cache."""
    settings = {
        "ADMIN_PASSWORD": ADMIN_PASSWORD,
        "ADMIN_API_KEY": ADMIN_KEY,
        "AUTHENTICATION_CACHE_SECONDS": "0",
        "INFERENCE_URL": "",  # tests of what is asked of inference run one of their own
    }
    return read_settings(Config, environment | CHEAP_PASSWORDS | settings | more)


@dataclass
class Person:
    """Somebody who has signed in."""

    username: str
    password: str
    token: str
    refresh_token: str


class Driver:
    """Calls a users service on behalf of clients."""

    def __init__(self, app: Flask) -> None:
        self.app = app
        self.client = app.test_client()
        self.admin = self.sign_in(ADMIN, ADMIN_PASSWORD)

    @classmethod
    def of(cls, config: Config) -> "Driver":
        return cls(create_app(config))

    def ask(self, headers: dict[str, str], identity: bool = True) -> TestResponse:
        """The gateway's question."""
        path = "/internal/authenticate" if identity else "/internal/authenticate-key"
        return self.client.get(path, headers=headers)

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        who: Person | None = None,
        key: str = ADMIN_KEY,
        token: str | None = None,
        address: str = ADDRESS,
        headers: dict[str, str] | None = None,
    ) -> TestResponse:
        """A client's request; refused as the gateway would when the question is answered with no."""
        bearer = who.token if who else token
        presented = {"x-api-key": key} | ({"Authorization": f"Bearer {bearer}"} if bearer else {})
        verdict = self.ask(presented | (headers or {}), identity=path not in KEY_ONLY)
        if verdict.status_code != 200:
            return verdict
        passed = {"X-Internal-Token": verdict.headers["X-Internal-Token"], "X-Forwarded-For": address}
        return self.client.open(path, method=method, json=body, headers=passed)

    def sign_in(self, username: str, password: str) -> Person:
        answer = self.call("POST", "/auth/token", {"username": username, "password": password})
        assert answer.status_code == 200, answer.text
        data = answer.get_json()["data"]
        return Person(username, password, data["access_token"], data["refresh_token"])

    def role(self, *permissions: str, by: Person | None = None) -> str:
        """A new role with these permissions."""
        name = f"role-{secrets.token_hex(4)}"
        by = by or self.admin
        body = {"role_name": name, "permissions": list(permissions), "creator": by.username}
        answer = self.call("POST", "/roles", body, by)
        assert answer.status_code == 201, answer.text
        return name

    def person(self, *permissions: str, roles: Sequence[str] = (), by: Person | None = None) -> Person:
        """A new user, signed in, with a role of these permissions or the given roles."""
        by = by or self.admin
        name, password = f"user-{secrets.token_hex(4)}", secrets.token_hex(8)
        roles = list(roles) or [self.role(*(permissions or ("inference:list",)), by=by)]
        body = {"username": name, "password": password, "roles": roles, "creator": by.username}
        answer = self.call("POST", "/users", body, by)
        assert answer.status_code == 201, answer.text
        return self.sign_in(name, password)

    def names(self, who: Person | None = None) -> set[str]:
        """The users that somebody sees."""
        answer = self.call("GET", "/users", who=who or self.admin)
        return {user["username"] for user in answer.get_json()["data"]["users"]}

    def shown(self, username: str) -> dict[str, Any]:
        """A user as the administrator sees them."""
        answer = self.call("GET", f"/users?username={username}", who=self.admin)
        user: dict[str, Any] = answer.get_json()["data"]["users"][0]
        return user
