"""Live events of jobs over Redis; whoever waits also looks at the truth now and then."""

import contextlib
import json
import logging
import time
from collections.abc import Iterator
from typing import Any

import redis
from redis.exceptions import RedisError

log = logging.getLogger(__name__)


class JobEvents:
    """Publishes the changes of jobs, and waits for them without asking MongoDB in a loop."""

    def __init__(self, redis_url: str) -> None:
        self._redis = redis.Redis.from_url(redis_url, socket_timeout=3, socket_connect_timeout=2)

    def ping(self) -> None:
        """Raise when Redis does not answer."""
        self._redis.ping()

    def publish(self, job_id: str, event: dict[str, Any]) -> None:
        """Tell those who wait for the job. Never fails: events may be lost."""
        try:
            self._redis.publish(channel_of(job_id), json.dumps(event))
        except RedisError as error:
            log.warning("an event was lost", extra={"job_id": job_id, "failure": type(error).__name__})

    def listen(self, job_id: str, seconds: float, look_every: float = 2.0) -> Iterator[dict[str, Any] | None]:
        """The job's events for so many seconds; None at the start, every `look_every` seconds and while
        Redis is away, when the caller looks at the database itself."""
        deadline = time.monotonic() + seconds
        with contextlib.closing(self._redis.pubsub(ignore_subscribe_messages=True)) as channel:
            subscribed = self._subscribe(channel, job_id)
            yield None
            while (left := deadline - time.monotonic()) > 0:
                pause = min(left, look_every)
                if not subscribed:
                    time.sleep(min(pause, 0.5))
                    subscribed = self._subscribe(channel, job_id)
                    yield None
                    continue
                try:
                    message = channel.get_message(timeout=pause)
                except RedisError:
                    subscribed = False
                    continue
                event = json.loads(message["data"]) if message and message["type"] == "message" else None
                if event is None or "status" in event:  # previews are for those who look at them
                    yield event

    @staticmethod
    def _subscribe(channel: Any, job_id: str) -> bool:
        try:
            channel.subscribe(channel_of(job_id))
        except RedisError:
            return False
        return True


def channel_of(job_id: str) -> str:
    """Where the changes of a job are told."""
    return f"sdfleet:job:{job_id}"
