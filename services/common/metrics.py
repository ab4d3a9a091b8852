"""What every service counts for Prometheus; the services' own metrics are in their metrics.py.

Label values come from closed lists: routes, statuses, types and the names of endpoints, never names or ids
that anybody can make many of.
"""

import functools

from prometheus_client import Counter, Histogram

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
QUICK = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)
SLOW = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0)

REQUESTS = Counter(
    "sdfleet_http_requests", "Requests that were answered", ["service", "method", "route", "status"]
)
REQUEST_SECONDS = Histogram(
    "sdfleet_http_request_seconds",
    "From the request's arrival to its answer",
    ["service", "method", "route"],
    buckets=QUICK,
)
TASKS = Counter("sdfleet_tasks", "Celery tasks that ended, by Celery's state", ["task", "state"])
TASK_SECONDS = Histogram("sdfleet_task_seconds", "How long Celery tasks ran", ["task"], buckets=SLOW)
LEASES_EXPIRED = Counter(
    "sdfleet_leases_expired", "Leases that silent workers lost (of inference, train, merge)", ["work"]
)
INTERNAL_FAILURES = Counter(
    "sdfleet_internal_call_failures", "Calls to another service that it did not answer properly", ["path"]
)


def count_request(service: str, method: str, route: str, status: int, seconds: float) -> None:
    """A request was answered; `route` is the rule, not the path."""
    answered, took = _request(service, method if method in METHODS else "other", route, status)
    answered.inc()
    took.observe(seconds)


@functools.cache
def _request(service: str, method: str, route: str, status: int) -> tuple[Counter, Histogram]:
    """Finding a metric by its labels costs as much as counting does."""
    return (
        REQUESTS.labels(service, method, route, status),
        REQUEST_SECONDS.labels(service, method, route),
    )
