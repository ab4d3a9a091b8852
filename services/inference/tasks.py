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


@app.task(name="inference.submit_to_sagemaker", ignore_result=True, time_limit=300)
def submit_to_sagemaker(endpoint: str | None = None) -> None:
    """Hand waiting jobs to one SageMaker endpoint, or to all."""
    submission = _context().sagemaker.submission
    if endpoint is None:
        submission.submit_all()
    else:
        submission.submit(endpoint)


@app.task(name="inference.pick_up_from_sagemaker", ignore_result=True, time_limit=300)
def pick_up_from_sagemaker() -> int:
    """Look for the answers of SageMaker endpoints."""
    return _context().sagemaker.pick_up.look()


@app.task(name="inference.sweep_deleted", ignore_result=True, time_limit=600)
def sweep_deleted() -> int:
    """Forget deleted jobs once no worker can write for them any more."""
    return _context().deletion.sweep()


@app.task(name="inference.delete_outlived", ignore_result=True, time_limit=600)
def delete_outlived() -> int:
    """Delete jobs that have been over, or not started, for longer than the deployment keeps them."""
    return _context().lifetimes.sweep()


@app.task(name="inference.announce_ends", ignore_result=True, time_limit=120)
def announce_ends() -> int:
    """Tell webhooks of jobs that are over."""
    return _context().announcing.run()
