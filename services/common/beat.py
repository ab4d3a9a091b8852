"""The Celery application of the one beat process."""

from services.common.queues import make_celery

app = make_celery("beat")
