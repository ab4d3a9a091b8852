"""How long a job will wait: its place in line, the pace of its endpoint, and the workers there."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from services.common.errors import Unavailable
from services.common.service_client import ServiceClient
from services.inference.line_repository import Line
from services.inference.pace import Pace
from services.inference.records import Job
from services.inference.states import Status

# In lists, jobs further back are told no place: one reading of the line serves the whole page.
PLACES_IN_LISTS = 1000
INSTANCES_KEPT_SECONDS = 5.0


@dataclass(frozen=True)
class Place:
    """Where a job stands in line, and for about how long; None for what nobody knows."""

    position: int | None = None
    wait_seconds: float | None = None


NO_PLACE = Place()


class Instances:
    """How many instances serve an endpoint, as the endpoints service said a few seconds ago."""

    def __init__(self, endpoints: ServiceClient) -> None:
        self._endpoints = endpoints
        self._known: dict[str, tuple[float, int | None]] = {}
        self._lock = threading.Lock()

    def of(self, endpoint: str) -> int | None:
        """Their number, None while the endpoints service does not answer or does not know the endpoint."""
        with self._lock:
            asked_at, count = self._known.get(endpoint, (0.0, None))
            if time.monotonic() - asked_at < INSTANCES_KEPT_SECONDS and endpoint in self._known:
                return count
            # Others use what is known while this one asks.
            self._known[endpoint] = (time.monotonic(), count)
        count = self._ask(endpoint)
        with self._lock:
            self._known[endpoint] = (time.monotonic(), count)
        return count

    def _ask(self, endpoint: str) -> int | None:
        question: dict[str, Any] = {"roles": [], "see_all": True, "endpoint_type": None, "name": endpoint}
        try:
            found = self._endpoints.call("/internal/candidates", question)["endpoints"]
        except Unavailable:
            return None
        return next((one["instance_count"] for one in found if one["name"] == endpoint), None)


class Waiting:
    """Tells jobs their places."""

    def __init__(self, line: Line, pace: Pace, instances: Instances) -> None:
        self._line = line
        self._pace = pace
        self._instances = instances

    def place(self, job: Job) -> Place:
        """The place of one job."""
        if job["status"] != Status.QUEUED:
            return NO_PLACE
        position = self._line.position(job)
        return Place(position, self._wait(position, self._speed(job["endpoint"])))

    def places(self, jobs: Sequence[Job]) -> dict[str, Place]:
        """The places of those of a page that wait, by id."""
        told: dict[str, Place] = {}
        for endpoint in {job["endpoint"] for job in jobs if job["status"] == Status.QUEUED}:
            speed = self._speed(endpoint)
            for number, job_id in enumerate(self._line.first_ids(endpoint, PLACES_IN_LISTS), 1):
                told[job_id] = Place(number, self._wait(number, speed))
        return told

    def _speed(self, endpoint: str) -> tuple[float, float] | None:
        """Seconds until one instance is free, and seconds for each job that is ahead; None when unknown."""
        seconds, instances = self._pace.seconds(endpoint), self._instances.of(endpoint)
        if seconds is None or not instances:
            return None
        running = self._line.running(endpoint)
        # With all instances busy the first to be free is, in the mean, there after a part of a job's time.
        until_free = seconds / (instances + 1) if running >= instances else 0.0
        return until_free, seconds / instances

    @staticmethod
    def _wait(position: int | None, speed: tuple[float, float] | None) -> float | None:
        if position is None or speed is None:
            return None
        until_free, each = speed
        return round(until_free + (position - 1) * each, 1)
