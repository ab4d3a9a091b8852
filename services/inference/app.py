"""The inference service's web application."""

from flask import Flask
from jwt import PyJWKClient

from services.common.identity import Authentication, KeySource
from services.common.logs import set_up_logs
from services.common.mongo import ping
from services.common.web import make_web_app
from services.inference import internal_routes, routes
from services.inference.config import Config
from services.inference.context import open_context


def create_app(config: Config | None = None, users_keys: KeySource | None = None) -> Flask:
    """Wire the service; `users_keys` stands in for the keys that users publishes."""
    config = config or Config.from_env()
    set_up_logs("inference", config.log_level)
    context = open_context(config)
    keys = users_keys or PyJWKClient(f"{config.internal.users_url}/internal/jwks.json")
    app = make_web_app(
        "inference",
        Authentication(keys, config.internal.service_secret, config.worker_secret),
        [routes.blueprint, internal_routes.blueprint],
        ready={"mongodb": lambda: ping(context.database), "s3": context.store.ping},
    )
    app.extensions["inference"] = context
    context.prepare()
    return app
