"""The web application of the checkpoints service."""

from flask import Flask

from services.checkpoints import internal_routes, migrations, routes
from services.checkpoints.config import Config
from services.checkpoints.tasks import BACKGROUND
from services.checkpoints.wiring import EXTENSION, connect
from services.common import mongo
from services.common.identity import KeySource
from services.common.logs import set_up_logs
from services.common.resource_service import make_resource_app


def create_app(config: Config | None = None, users_keys: KeySource | None = None) -> Flask:
    """Wire the service; settings come from the environment unless given.

    `users_keys` stands in for the keys that the users service publishes.
    """
    if config is None:
        config = Config.from_env()
        set_up_logs("checkpoints", config.log_level)
    parts = connect(config, BACKGROUND)
    migrations.prepare(parts.database)
    parts.storage.objects.ensure_bucket()
    parts.storage.allow_origins(config.cors_origins)
    app = make_resource_app(
        "checkpoints",
        config.internal,
        [routes.blp, internal_routes.blp],
        ready={"mongodb": lambda: mongo.ping(parts.database), "s3": parts.storage.check},
        redis_url=config.redis_url,
        users_keys=users_keys,
    )
    app.extensions[EXTENSION] = parts
    return app
