"""The inference service's web application."""

from flask import Flask

from services.common.identity import KeySource
from services.common.logs import set_up_logs
from services.common.metrics_server import COLLECTORS
from services.common.mongo import ping
from services.common.resource_service import make_resource_app
from services.inference import internal_routes, metrics, routes, routes_events, routes_models, routes_webhooks
from services.inference.config import Config
from services.inference.context import open_context


def create_app(config: Config | None = None, users_keys: KeySource | None = None) -> Flask:
    """Wire the service; `users_keys` stands in for the keys that users publishes."""
    config = config or Config.from_env()
    set_up_logs("inference", config.log_level)
    context = open_context(config)
    app = make_resource_app(
        "inference",
        config.internal,
        [
            routes.blueprint,
            routes_events.blueprint,
            routes_models.blueprint,
            routes_webhooks.blueprint,
            internal_routes.blueprint,
        ],
        ready={"mongodb": lambda: ping(context.database), "s3": context.store.ping},
        redis_url=config.redis_url,
        worker_secret=config.worker_secret,
        users_keys=users_keys,
    )
    app.extensions["inference"] = context
    app.extensions[COLLECTORS] = [metrics.lines(context.database)]
    context.prepare()
    return app
