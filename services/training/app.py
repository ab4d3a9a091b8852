"""The web application of the training service."""

from flask import Flask

from services.common import mongo
from services.common.identity import KeySource
from services.common.logs import set_up_logs
from services.common.metrics_server import COLLECTORS
from services.common.resource_service import make_resource_app
from services.training import internal_routes, merge_routes, metrics, migrations, model_routes, routes
from services.training.config import Config
from services.training.tasks import ask_to_finish
from services.training.wiring import EXTENSION, connect


def create_app(config: Config | None = None, users_keys: KeySource | None = None) -> Flask:
    """Wire the service; `users_keys` stands in for the keys that users publishes."""
    if config is None:
        config = Config.from_env()
        set_up_logs("training", config.log_level)
    parts = connect(config, ask_to_finish)
    migrations.prepare(parts.database)
    parts.storage.objects.ensure_bucket()
    app = make_resource_app(
        "training",
        config.internal,
        [routes.blp, model_routes.blp, merge_routes.blp, internal_routes.blp],
        ready={"mongodb": lambda: mongo.ping(parts.database), "s3": parts.storage.objects.ping},
        redis_url=config.redis_url,
        worker_secret=config.worker_secret,
        users_keys=users_keys,
    )
    app.extensions[EXTENSION] = parts
    app.extensions[COLLECTORS] = [metrics.waiting_and_running(parts.database)]
    return app
