"""The Celery application of the one beat process."""

from typing import Any

import celery.beat

from services.common.alive import touch
from services.common.queues import make_celery

app = make_celery("beat")


class Scheduler(celery.beat.Scheduler):
    """Celery's own, in memory; tells that it goes on."""

    def tick(self, *arguments: Any, **options: Any) -> Any:
        seconds = super().tick(*arguments, **options)
        touch()
        return seconds
