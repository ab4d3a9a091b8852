"""The web application of the datasets service."""

from flask import Flask

from services.common import mongo
from services.common.identity import KeySource
from services.common.logs import set_up_logs
from services.common.resource_service import make_resource_app
from services.datasets import internal_routes, migrations, routes
from services.datasets.config import Config
from services.datasets.tasks import ask
from services.datasets.wiring import EXTENSION, connect


def create_app(config: Config | None = None, users_keys: KeySource | None = None) -> Flask:
    """Wire the service; `users_keys` stands in for the keys that users publishes."""
    if config is None:
        config = Config.from_env()
        set_up_logs("datasets", config.log_level)
    parts = connect(config, ask)
    migrations.prepare(parts.database)
    parts.storage.objects.ensure_bucket()
    app = make_resource_app(
        "datasets",
        config.internal,
        [routes.blp, internal_routes.blp],
        ready={"mongodb": lambda: mongo.ping(parts.database), "s3": parts.storage.objects.ping},
        redis_url=config.redis_url,
        users_keys=users_keys,
    )
    app.extensions[EXTENSION] = parts
    return app
