"""Background work of the inference service."""

import functools

from services.common.queues import make_celery
from services.inference.config import Config
from services.inference.context import Context, open_context

app = make_celery("inference", queue="inference")


@functools.cache
def _context() -> Context:
    return open_context(Config.from_env())


@app.task(name="inference.requeue_expired_leases", ignore_result=True, time_limit=60)
def requeue_expired_leases() -> int:
    """Give the jobs of silent workers to the next one."""
    return _context().running.requeue_expired()


@app.task(name="inference.sweep_deleted", ignore_result=True, time_limit=600)
def sweep_deleted() -> int:
    """Forget deleted jobs once no worker can write for them any more."""
    return _context().deletion.sweep()
