"""What the endpoints service looks up for Prometheus."""

from collections import Counter
from collections.abc import Iterable, Mapping

from services.common.looked_up import Gauge, LookedUp, Sample
from services.endpoints.wiring import Wiring

INSTANCES = Gauge(
    "sdfleet_endpoint_instances",
    "Instances of an endpoint: wanted, and current (they take jobs)",
    ("endpoint", "state"),
)
ENDPOINTS = Gauge("sdfleet_endpoints", "Endpoints by their state", ("status",))
WORKERS = Gauge("sdfleet_workers", "GPU workers that were heard lately", ("instance_type", "state"))
SLOTS = Gauge(
    "sdfleet_worker_slots", "Slots of these workers: all, and taken by endpoints", ("instance_type", "state")
)


def fleet(parts: Wiring) -> LookedUp:
    """Endpoints and workers as they are now: all replicas say the same."""

    def look() -> Mapping[str, list[Sample]]:
        live, workers = parts.endpoints.live(), parts.workers.present()
        seen = parts.backends.observe(live)
        slots: Counter[tuple[str, ...]] = Counter()
        for worker in workers:
            slots[worker["instance_type"], "all"] += worker["slots"]
            slots[worker["instance_type"], "taken"] += len(worker["slots_taken"])
        instances: list[Sample] = [((one["name"], "wanted"), one["wanted"]) for one in live]
        instances += [((one["name"], "current"), seen[one["_id"]].ready) for one in live]
        return {
            INSTANCES.name: instances,
            ENDPOINTS.name: _counted((str(one["status"]),) for one in live),
            WORKERS.name: _counted((one["instance_type"], one["state"]) for one in workers),
            SLOTS.name: list(slots.items()),
        }

    return LookedUp((INSTANCES, ENDPOINTS, WORKERS, SLOTS), look)


def _counted(labels: Iterable[tuple[str, ...]]) -> list[Sample]:
    return list(Counter(labels).items())
