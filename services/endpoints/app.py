"""The endpoints service."""

import functools

import jwt
from flask import Flask

from services.common.identity import Authentication, KeySource
from services.common.logs import set_up_logs
from services.common.mongo import ping
from services.common.web import make_web_app
from services.endpoints import internal_routes, routes
from services.endpoints.config import Config
from services.endpoints.wiring import SERVICE, wire


def create_app(config: Config | None = None, users_keys: KeySource | None = None) -> Flask:
    """The service's web application; its settings come from the environment unless they are given."""
    if config is None:
        config = Config.from_env()
        set_up_logs(SERVICE, config.log_level)
    keys = users_keys or jwt.PyJWKClient(
        f"{config.internal.users_url.rstrip('/')}/internal/jwks.json", timeout=5
    )
    authentication = Authentication(keys, config.internal.service_secret, config.worker_secret)
    wiring = wire(config)
    wiring.endpoints.ensure_indexes()
    wiring.workers.ensure_indexes()
    app = make_web_app(
        SERVICE,
        authentication,
        [routes.blp, internal_routes.blp],
        ready={"mongodb": functools.partial(ping, wiring.database)},
    )
    app.extensions[SERVICE] = wiring
    return app
