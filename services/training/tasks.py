"""The background work of training: `celery -A services.training.tasks worker -Q training`."""

import functools
import logging

from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from services.common.queues import PERIODIC, make_celery
from services.training.config import Config
from services.training.wiring import Parts, connect

log = logging.getLogger(__name__)

app = make_celery("training", "training")


def ask_to_finish(work_id: str, expires: float | None = None) -> None:
    """Tell that a result waits to become a checkpoint; a lost message is made good by the sweep."""
    try:
        finish.apply_async((work_id,), retry=False, expires=expires)
    except (RedisError, KombuError, OSError) as error:
        log.warning("a message was lost", extra={"task": finish.name, "failure": type(error).__name__})


@functools.cache
def _parts() -> Parts:
    return connect(Config.from_env(), ask_to_finish)


@app.task(name="training.finish", acks_late=True, soft_time_limit=1800)
def finish(work_id: str) -> None:
    """Make a checkpoint of the result."""
    _parts().finishing.finish(work_id)


@app.task(name="training.go_on", acks_late=True, soft_time_limit=60)
def go_on() -> None:
    """Give the work of silent workers to the next one, and finish what a dead process left."""
    parts = _parts()
    parts.running.requeue_expired()
    for work_id in parts.work.finishing():
        ask_to_finish(work_id, expires=PERIODIC["training.go_on"][1])
    parts.finishing.sweep()


@app.task(name="training.follow_sagemaker", acks_late=True, soft_time_limit=120)
def follow_sagemaker() -> None:
    """Submit trainings to SageMaker, and see how they are."""
    _parts().following.run()
