"""What the inference service tells Prometheus."""

from collections.abc import Callable

import pytest
from prometheus_client import REGISTRY, CollectorRegistry

from services.inference import metrics
from tests.inference.conftest import ENDPOINT, Service

NAME = ENDPOINT["name"]


@pytest.fixture()
def grown() -> Callable[..., float]:
    """How much a counter has grown since it was first asked for in this test."""
    before: dict[str, float] = {}

    def ask(name: str, **labels: str) -> float:
        value = REGISTRY.get_sample_value(name, labels) or 0.0
        return value - before.setdefault(f"{name}{labels}", value)

    return ask


def lines(service: Service) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(metrics.lines(service.context.database))
    return registry


def test_a_jobs_life_is_counted(service: Service, grown: Callable[..., float]) -> None:
    about = {"task_type": "txt2img"}
    succeeded = about | {"status": "succeed"}
    assert grown("sdfleet_jobs_ended_total", **succeeded) == 0
    assert grown("sdfleet_job_attempts_total", **about) == 0
    assert grown("sdfleet_leases_expired_total", work="inference") == 0
    assert grown("sdfleet_job_seconds_count", **about) == 0
    assert grown("sdfleet_job_wait_seconds_count", **about) == 0
    job_id = service.started()
    service.claimed()
    service.expire_lease(job_id)
    assert service.context.running.requeue_expired() == 1
    job = service.claimed("worker-2")
    done = service.work(f"jobs/{job_id}/complete", "worker-2", attempt=job["attempt"], images=["image_0.png"])
    assert done.status_code == 204
    assert grown("sdfleet_jobs_ended_total", **succeeded) == 1
    assert grown("sdfleet_job_attempts_total", **about) == 2
    assert grown("sdfleet_leases_expired_total", work="inference") == 1
    assert grown("sdfleet_job_seconds_count", **about) == 1
    assert grown("sdfleet_job_wait_seconds_count", **about) == 1, "the first attempt's alone"


def test_a_late_attempt_is_counted_nowhere(service: Service, grown: Callable[..., float]) -> None:
    labels = {"task_type": "txt2img", "status": "succeed"}
    job_id = service.started()
    job = service.claimed()
    service.expire_lease(job_id)
    service.context.running.requeue_expired()
    grown("sdfleet_jobs_ended_total", **labels)
    late = service.work(f"jobs/{job_id}/complete", attempt=job["attempt"], images=["image_0.png"])
    assert late.status_code == 409
    assert grown("sdfleet_jobs_ended_total", **labels) == 0


def test_a_cancelled_job_is_counted_once(service: Service, grown: Callable[..., float]) -> None:
    labels = {"task_type": "txt2img", "status": "cancelled"}
    grown("sdfleet_jobs_ended_total", **labels)
    job_id = service.started()
    for _ in range(2):
        service.put(f"/inferences/{job_id}/cancel")
        service.post(f"/inferences/{job_id}/cancel")
    assert grown("sdfleet_jobs_ended_total", **labels) == 1


def test_the_line_of_each_endpoint_is_looked_up(service: Service) -> None:
    for _ in range(3):
        service.started()
    service.claimed()
    shown = lines(service)
    about = {"endpoint": NAME}
    assert shown.get_sample_value("sdfleet_queue_jobs", about | {"state": "queued"}) == 2
    shown = lines(service)
    assert shown.get_sample_value("sdfleet_queue_jobs", about | {"state": "running"}) == 1
    assert (shown.get_sample_value("sdfleet_queue_oldest_seconds", about) or -1) >= 0


def test_jobs_that_are_over_cost_no_look(service: Service) -> None:
    for _ in range(3):
        job_id = service.started()
        job = service.claimed()
        service.work(f"jobs/{job_id}/complete", attempt=job["attempt"], images=["image_0.png"])
    database = service.context.database
    plan = database.command(
        "explain",
        {"aggregate": "jobs", "pipeline": metrics._PER_ENDPOINT, "hint": "in line", "cursor": {}},
        verbosity="executionStats",
    )
    statistics = plan["stages"][0]["$cursor"] if "stages" in plan else plan
    assert statistics["executionStats"]["totalKeysExamined"] == 0
