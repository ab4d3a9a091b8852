"""Metrics as Prometheus gets them: one answer for all processes of a service."""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import requests
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from services.common.looked_up import Gauge, LookedUp
from services.common.queues import make_celery
from stack.ports import HOST, free_ports
from tests.conftest import Keys
from tests.gateway.running import running, wait_for

GUNICORN = (
    "-m",
    "gunicorn",
    "-c",
    "services/common/gunicorn_config.py",
    "services.datasets.app:create_app()",
)


def samples(port: int) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample by its name and labels."""
    text = requests.get(f"http://{HOST}:{port}/metrics", timeout=5).text
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def total(port: int, name: str, **labels: str) -> float:
    """The sum of a metric's samples that have these labels."""
    return sum(
        value
        for (found, its_labels), value in samples(port).items()
        if found == name and labels.items() <= dict(its_labels).items()
    )


@contextmanager
def service(folder: Path, environment: dict[str, str], **more: str) -> Iterator[tuple[int, int]]:
    """The data sets' service with two processes; its port and that of its metrics."""
    port, metrics = free_ports(2)
    settings = environment | more | {"LISTEN": f"{HOST}:{port}", "METRICS_LISTEN": f"{HOST}:{metrics}"}
    with running([sys.executable, *GUNICORN], folder / "service.log", **settings, WEB_WORKERS="2"):
        wait_for(lambda: requests.get(f"http://{HOST}:{port}/readyz", timeout=5).ok, 60)
        wait_for(lambda: requests.get(f"http://{HOST}:{metrics}/metrics", timeout=5).ok, 60)
        yield port, metrics


def test_the_requests_of_all_processes_are_counted_together(
    tmp_path: Path, environment: Callable[..., dict[str, str]], keys: Keys
) -> None:
    with service(tmp_path, environment()) as (port, metrics):
        for _ in range(40):  # without a kept connection: whichever process is quicker takes it
            assert requests.get(f"http://{HOST}:{port}/datasets/none", timeout=5).status_code == 401
        requests.get(f"http://{HOST}:{port}/nowhere/at/all", timeout=5)
        about = {"service": "datasets", "method": "GET"}
        route = about | {"route": "/datasets/<name>"}
        counted = [total(metrics, "sdfleet_http_requests_total", **route, status="401") for _ in range(5)]
        assert counted == [40] * 5, "each process answers for both"
        assert total(metrics, "sdfleet_http_request_seconds_count", **route) == 40
        assert total(metrics, "sdfleet_http_requests_total", route="unknown", status="404") == 1


def test_paths_and_methods_that_strangers_invent_make_no_more_series(
    tmp_path: Path, environment: Callable[..., dict[str, str]]
) -> None:
    with service(tmp_path, environment()) as (port, metrics):
        before = len(samples(metrics))
        for number in range(30):
            requests.request(f"ODD{number}", f"http://{HOST}:{port}/x{number}", timeout=5)
            requests.get(f"http://{HOST}:{port}/datasets/x{number}", timeout=5)
        wait_for(lambda: total(metrics, "sdfleet_http_requests_total") >= 60)
        assert len(samples(metrics)) - before < 60
        assert not [labels for _, labels in samples(metrics) if "x7" in str(labels) or "ODD7" in str(labels)]


def test_a_service_that_starts_again_begins_at_zero(
    tmp_path: Path, environment: Callable[..., dict[str, str]]
) -> None:
    folder = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "values")}
    its_own = environment()
    (tmp_path / "values").mkdir()
    for _ in range(2):
        with service(tmp_path, its_own, **folder) as (port, metrics):
            requests.get(f"http://{HOST}:{port}/nowhere", timeout=5)
            assert total(metrics, "sdfleet_http_requests_total", route="unknown") == 1


def test_a_service_without_a_port_for_metrics_listens_on_none_and_answers_none(
    tmp_path: Path, environment: Callable[..., dict[str, str]]
) -> None:
    [port] = free_ports(1)
    settings = environment() | {"LISTEN": f"{HOST}:{port}"}
    with running([sys.executable, *GUNICORN], tmp_path / "service.log", **settings):
        wait_for(lambda: requests.get(f"http://{HOST}:{port}/readyz", timeout=5).ok, 60)
        assert requests.get(f"http://{HOST}:{port}/metrics", timeout=5).status_code == 404


def test_the_tasks_of_a_celery_worker_are_counted(
    tmp_path: Path, environment: Callable[..., dict[str, str]]
) -> None:
    its_own = environment()
    [metrics] = free_ports(1)
    command = [sys.executable, "-m", "celery", "-A", "services.datasets.tasks", "worker", "-Q", "datasets"]
    quiet = ["--concurrency", "2", "--without-mingle", "--without-gossip", "--without-heartbeat"]
    sender = make_celery("test", broker_url=its_own["REDIS_URL"])
    with ExitStack() as started:
        settings = its_own | {"METRICS_LISTEN": f"{HOST}:{metrics}"}
        started.enter_context(running([*command, *quiet], tmp_path / "tasks.log", **settings))
        for _ in range(6):
            sender.send_task("datasets.go_on", queue="datasets")
        wait_for(
            lambda: total(metrics, "sdfleet_tasks_total", task="datasets.go_on", state="SUCCESS") == 6, 90
        )
        assert total(metrics, "sdfleet_task_seconds_count", task="datasets.go_on") == 6


def test_what_is_looked_up_is_left_out_while_it_cannot_be() -> None:
    gauge = Gauge("sdfleet_test", "A test", ("place",))

    def fail() -> dict:
        raise OSError

    registry = CollectorRegistry()
    registry.register(LookedUp([gauge], fail))
    assert list(registry.collect()) == []


def test_who_asks_often_costs_one_look() -> None:
    looks: list[int] = []

    def look() -> dict:
        looks.append(1)
        return {"sdfleet_test": [(("here",), 3.0)]}

    registry = CollectorRegistry()
    registry.register(LookedUp([Gauge("sdfleet_test", "A test", ("place",))], look))
    for _ in range(5):
        assert registry.get_sample_value("sdfleet_test", {"place": "here"}) == 3.0
    assert len(looks) == 1


@pytest.mark.parametrize("listen", ["nowhere", "127.0.0.1:notaport"])
def test_a_wrong_port_for_metrics_stops_nothing(listen: str) -> None:
    from services.common.metrics_server import serve_metrics

    assert serve_metrics(listen=listen) is None
