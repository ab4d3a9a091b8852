"""The background work of datasets: `celery -A services.datasets.tasks worker -Q datasets`."""

import functools
import logging

from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from services.common.queues import PERIODIC, make_celery
from services.datasets.config import Config
from services.datasets.wiring import Parts, connect

log = logging.getLogger(__name__)

app = make_celery("datasets", "datasets")

LONG = 12 * 3600  # seconds


def ask(dataset_id: str, expires: float | None = None) -> None:
    """Tell that a data set waits; a message that is lost is made good by the sweep."""
    try:
        work.apply_async((dataset_id,), retry=False, expires=expires)
    except (RedisError, KombuError, OSError) as error:
        log.warning("a message was lost", extra={"task": work.name, "failure": type(error).__name__})


@functools.cache
def _parts() -> Parts:
    return connect(Config.from_env(), ask)


@app.task(name="datasets.work", acks_late=True, soft_time_limit=LONG)
def work(dataset_id: str) -> None:
    """Verify the files of a data set, or make it of another one's pictures."""
    _parts().background.run(dataset_id)


@app.task(name="datasets.go_on", acks_late=True, soft_time_limit=600)
def go_on() -> None:
    """Have somebody go on with what a dead process left or a lost message asked for; end deletions."""
    parts = _parts()
    for dataset_id in parts.repository.waiting_work():
        ask(dataset_id, expires=PERIODIC["datasets.go_on"][1])
    for dataset in parts.repository.deleted():
        parts.background.purge(dataset)
