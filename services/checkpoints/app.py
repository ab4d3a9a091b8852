"""The web application of the checkpoints service."""

import jwt
from flask import Flask

from services.checkpoints import internal_routes, routes
from services.checkpoints.config import Config
from services.checkpoints.tasks import BACKGROUND
from services.checkpoints.wiring import EXTENSION, connect
from services.common import mongo
from services.common.identity import Authentication, KeySource
from services.common.logs import set_up_logs
from services.common.web import make_web_app


def create_app(config: Config | None = None, users_keys: KeySource | None = None) -> Flask:
    """Wire the service; settings come from the environment unless given.

    `users_keys` stands in for the keys that the users service publishes.
    """
    if config is None:
        config = Config.from_env()
        set_up_logs("checkpoints", config.log_level)
    parts = connect(config, BACKGROUND)
    parts.repository.ensure_indexes()
    parts.storage.objects.ensure_bucket()
    keys = users_keys or jwt.PyJWKClient(
        f"{config.internal.users_url.rstrip('/')}/internal/jwks.json", timeout=5
    )
    app = make_web_app(
        "checkpoints",
        Authentication(keys, config.internal.service_secret),
        [routes.blp, internal_routes.blp],
        ready={"mongodb": lambda: mongo.ping(parts.database), "s3": parts.storage.check},
    )
    app.extensions[EXTENSION] = parts
    return app
