"""The application of a service beside users, which proves who calls and hears of every change."""

from collections.abc import Mapping

from flask import Flask
from flask_smorest import Blueprint
from jwt import PyJWKClient

from services.common.audit import AuditSender, audit_changes
from services.common.identity import Authentication, KeySource
from services.common.service_client import ServiceClient
from services.common.settings import InternalSettings
from services.common.web import Check, make_web_app

# A signing key that was stolen is out everywhere within ten seconds (`rotate-keys --at-once`): the seconds
# that users remembers its keys, these, and those for which a verified token is remembered (identity.py).
KEYS_KEPT_SECONDS = 3
UNKNOWN_KEY_PAUSE_SECONDS = 1  # tokens that name invented keys cost no more than one question a second
SECONDS_FOR_KEYS = 5


def published_keys(users_url: str) -> PyJWKClient:
    """The keys that users publishes now, asked for again every few seconds."""
    return PyJWKClient(
        f"{users_url}/internal/jwks.json",
        lifespan=KEYS_KEPT_SECONDS,
        cooldown_duration=UNKNOWN_KEY_PAUSE_SECONDS,
        timeout=SECONDS_FOR_KEYS,
    )


def make_resource_app(
    service: str,
    internal: InternalSettings,
    blueprints: list[Blueprint],
    ready: Mapping[str, Check],
    *,
    redis_url: str,
    worker_secret: str | None = None,
    users_keys: KeySource | None = None,
) -> Flask:
    """The service's Flask application, with rate limits of API keys and audit entries.

    `users_keys` stands in for the keys that users publishes; `worker_secret` is for services that GPU
    workers call.
    """
    users_url = internal.users_url.rstrip("/")
    keys = users_keys or published_keys(users_url)
    authentication = Authentication(keys, internal.service_secret, worker_secret)
    app = make_web_app(service, authentication, blueprints, ready, rate_limits=redis_url)
    audit_changes(app, AuditSender(ServiceClient(service, users_url, internal.service_secret)))
    return app
