"""What the endpoints service tells Prometheus."""

from prometheus_client import CollectorRegistry

from services.endpoints import metrics
from tests.endpoints.conftest import GpuWorker, Service


def test_endpoints_and_workers_are_looked_up(service: Service) -> None:
    worker = GpuWorker(service, slots=4)
    worker.settle()
    name = service.created(initial_instance_count="2")["endpoint_name"]
    for _ in range(4):
        worker.settle()
        service.tick()
    registry = CollectorRegistry()
    registry.register(metrics.fleet(service.wiring))
    instances = {
        state: registry.get_sample_value("sdfleet_endpoint_instances", {"endpoint": name, "state": state})
        for state in ("wanted", "current")
    }
    assert instances["wanted"] == 2
    assert instances["current"] == 2
    kind = {"instance_type": "local.cpu"}
    assert registry.get_sample_value("sdfleet_worker_slots", kind | {"state": "all"}) == 4
    assert (
        registry.get_sample_value("sdfleet_worker_slots", kind | {"state": "taken"}) == instances["current"]
    )
    assert registry.get_sample_value("sdfleet_workers", kind | {"state": "idle"}) == 1
