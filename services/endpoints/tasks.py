"""What the endpoints service does in the background.

celery -A services.endpoints.tasks worker -Q endpoints
"""

import functools
from typing import Any

from celery.signals import setup_logging

from services.common.logs import set_up_logs
from services.common.queues import make_celery
from services.endpoints.config import Config
from services.endpoints.wiring import SERVICE, Wiring, wire

app = make_celery(SERVICE, SERVICE)


@setup_logging.connect
def write_json_logs(**_: Any) -> None:
    """Log as the web front does, instead of Celery's own way."""
    set_up_logs(SERVICE, Config.from_env().log_level)


@functools.cache
def _wiring() -> Wiring:
    """One set of connections for each process, made with its first task."""
    return wire(Config.from_env())


@app.task(name="endpoints.reconcile", ignore_result=True, acks_late=True, soft_time_limit=20, time_limit=30)
def reconcile() -> None:
    """Look after every endpoint; beat asks every two seconds, a missed one is made up by the next."""
    _wiring().controller.tick()


@app.task(name="endpoints.synchronise", ignore_result=True, acks_late=True, soft_time_limit=80, time_limit=90)
def synchronise() -> None:
    """See how endpoints at SageMaker are, make and remove what is to be; beat asks every five seconds."""
    _wiring().controller.synchronise()
