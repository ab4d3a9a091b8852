"""The endpoints service."""

import functools

from flask import Flask

from services.common.identity import KeySource
from services.common.logs import set_up_logs
from services.common.metrics_server import COLLECTORS
from services.common.mongo import ping
from services.common.resource_service import make_resource_app
from services.endpoints import internal_routes, metrics, migrations, routes
from services.endpoints.config import Config
from services.endpoints.wiring import SERVICE, wire


def create_app(config: Config | None = None, users_keys: KeySource | None = None) -> Flask:
    """The service's web application; its settings come from the environment unless they are given."""
    if config is None:
        config = Config.from_env()
        set_up_logs(SERVICE, config.log_level)
    wiring = wire(config)
    migrations.prepare(wiring.database)
    app = make_resource_app(
        SERVICE,
        config.internal,
        [routes.blp, internal_routes.blp],
        ready={"mongodb": functools.partial(ping, wiring.database)},
        redis_url=config.redis_url,
        worker_secret=config.worker_secret,
        users_keys=users_keys,
    )
    app.extensions[SERVICE] = wiring
    app.extensions[COLLECTORS] = [metrics.fleet(wiring)]
    return app
