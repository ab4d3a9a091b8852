"""The conditions under which a process of ours is ready; each raises while it is not."""

import requests
from celery import Celery

from services.common.identity import HEADER, make_service_token

SECONDS = 1  # a service that is still importing accepts connections and says nothing


class NotYet(Exception):
    """The process runs, and cannot do its work yet."""


def service_answers(url: str) -> None:
    """The service reaches everything that it needs."""
    _get(f"{url}/readyz")


def gateway_answers(url: str, api_key: str) -> None:
    """The gateway answers, and users behind it knows the key."""
    _get(f"{url}/ping", {"x-api-key": api_key})


def worker_is_registered(endpoints_url: str, service_secret: str, worker_id: str) -> None:
    """The endpoints service has heard the GPU worker's heartbeat."""
    token = make_service_token("stack", service_secret)
    workers = _get(f"{endpoints_url}/internal/workers", {HEADER: token}).json()["workers"]
    if worker_id not in {worker["id"] for worker in workers}:
        raise NotYet(f"no heartbeat of {worker_id} yet")


def celery_answers(redis_url: str, node: str) -> None:
    """The Celery worker hears what is sent to it."""
    with Celery(broker=redis_url, set_as_current=False) as app:
        if not app.control.inspect(destination=[node], timeout=3, limit=1).ping():
            raise NotYet(f"{node} does not answer yet")


def _get(url: str, headers: dict[str, str] | None = None) -> requests.Response:
    answer = requests.get(url, headers=headers, timeout=SECONDS)
    if answer.status_code != 200:
        raise NotYet(f"{url} answers {answer.status_code}: {answer.text[:200]}")
    return answer
