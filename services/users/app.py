"""The users service: identity, users, roles and API keys."""

import logging
import time

from flask import Flask
from pymongo.errors import ConnectionFailure

from services.common import worker
from services.common.audit import audit_changes
from services.common.identity import Authentication
from services.common.logs import set_up_logs
from services.common.mongo import Documents, open_database, ping
from services.common.service_client import ServiceClient
from services.common.settings import read_settings
from services.common.web import make_web_app
from services.users import (
    migrations,
    routes,
    routes_api_keys,
    routes_audit,
    routes_docs,
    routes_internal,
    routes_me,
    routes_roles,
    routes_tokens,
    routes_users,
)
from services.users.audit_log import AuditLog
from services.users.authentication import Authenticator
from services.users.config import Config
from services.users.credentials_repository import CredentialsRepository
from services.users.fast_path import AnswerFromMemory, AuthenticateFast
from services.users.first_start import write_first_administrator
from services.users.openapi import WholeApi
from services.users.parts import EXTENSION, Parts
from services.users.passwords import Passwords
from services.users.repository import Repository
from services.users.sessions import Sessions
from services.users.signing import KeyRing
from services.users.throttling import SignInThrottle
from services.users.tokens import Tokens

log = logging.getLogger(__name__)

WAIT_FOR_MONGODB_SECONDS = 90
BLUEPRINTS = [
    module.blp
    for module in (
        routes,
        routes_tokens,
        routes_roles,
        routes_users,
        routes_me,
        routes_api_keys,
        routes_audit,
        routes_docs,
        routes_internal,
    )
]


def create_app(config: Config | None = None) -> Flask:
    """The application, ready to serve: indexes, signing key and first administrator are there."""
    if config is None:
        config = read_settings(Config)
        set_up_logs("users", config.log_level)
    database = open_database(config.mongo, "users")
    made = make_parts(config, database)
    prepare(made, database)
    app = make_web_app(
        "users",
        Authentication(made.ring, config.service_secret),
        BLUEPRINTS,
        ready={"mongodb": lambda: ping(database)},
        rate_limits=config.redis_url,
    )
    app.extensions[EXTENSION] = made
    audit_changes(app, made.audit_log.add_own)
    app.extensions[worker.EXTENSION] = AnswerFromMemory(made.authenticator)
    app.wsgi_app = AuthenticateFast(app.wsgi_app, made.authenticator)  # type: ignore[method-assign]
    return app


def make_parts(config: Config, database: Documents) -> Parts:
    """Wire the service's parts together; nothing connects yet."""
    repository, credentials = Repository(database), CredentialsRepository(database)
    ring, passwords = KeyRing(credentials), Passwords(config.passwords)
    tokens = Tokens(ring, config.access_token_seconds)
    throttle = SignInThrottle(credentials, config.throttle)
    return Parts(
        config=config,
        repository=repository,
        credentials=credentials,
        ring=ring,
        passwords=passwords,
        authenticator=Authenticator(repository, credentials, tokens, config.authentication_cache_seconds),
        sessions=Sessions(repository, credentials, passwords, tokens, throttle, config.refresh_token_days),
        audit_log=AuditLog(database),
        inference=ServiceClient("users", config.inference_url, config.service_secret)
        if config.inference_url
        else None,
        whole_api=WholeApi(
            {
                "checkpoints": config.checkpoints_url,
                "endpoints": config.endpoints_url,
                "inference": config.inference_url,
                "datasets": config.datasets_url,
                "training": config.training_url,
            }
        ),
    )


def prepare(made: Parts, database: Documents) -> None:
    """Write what a deployment begins with; waits for a MongoDB that is still starting."""
    give_up_at = time.monotonic() + WAIT_FOR_MONGODB_SECONDS
    while True:
        try:
            migrations.prepare(database)
            made.ring.ensure()
            write_first_administrator(
                made.config.first_start, made.repository, made.credentials, made.passwords
            )
            return
        except ConnectionFailure:
            if time.monotonic() > give_up_at:
                raise
            log.warning("MongoDB does not answer yet, trying again")
            time.sleep(0.5)
