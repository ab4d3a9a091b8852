"""The life of endpoints on workers that come, go and are lost."""

from typing import Any

import pytest

from services.common.times import now
from tests.endpoints.conftest import GpuWorker, Others, Service, StartService, wait_until

QUICK = {"WORKER_LOST_SECONDS": "0.6"}


def status(service: Service, name: str) -> str:
    return str(service.get(name)["endpoint_status"])


def count(service: Service, name: str) -> str:
    return str(service.get(name)["current_instance_count"])


def test_an_endpoint_is_in_service_when_its_first_instance_says_so(
    service: Service, worker: GpuWorker
) -> None:
    name = service.created()["endpoint_name"]
    assert worker.heartbeat() == [name]
    assert (status(service, name), count(service, name)) == ("Creating", "0")
    worker.heartbeat()
    endpoint = service.get(name)
    assert (endpoint["endpoint_status"], endpoint["current_instance_count"]) == ("InService", "1")
    assert endpoint["endTime"] >= endpoint["startTime"]


def test_an_endpoint_waits_for_a_worker_that_comes_later(start_service: StartService) -> None:
    service = start_service(ENDPOINT_CAPACITY="local.cpu=1")
    name = service.created()["endpoint_name"]
    service.tick()
    assert status(service, name) == "Creating"
    GpuWorker(service).settle()
    assert status(service, name) == "InService"


def test_an_endpoint_without_instances_fails_with_the_reason(
    start_service: StartService, others: Others
) -> None:
    service = start_service(ENDPOINT_CAPACITY="local.cpu=1", ENDPOINT_CREATION_SECONDS="0.1")
    name = service.created()["endpoint_name"]

    def failed() -> bool:
        service.tick()
        return status(service, name) == "Failed"

    wait_until(failed)
    assert service.get(name)["error"] == (
        "no instance became ready within 0 s: no worker of instance type local.cpu is registered"
    )
    wait_until(lambda: service.tick() or others.deleted)
    assert others.deleted == [{"name": name, "roles": ["artists"], "endpoint_type": "Async"}]
    assert service.create().status_code == 200, "a failed endpoint takes neither role nor capacity"
    assert service.delete(name).status_code == 200
    wait_until(lambda: service.tick() or len(service.listed()) == 1)


def test_a_lost_workers_instances_go_to_another(start_service: StartService) -> None:
    service = start_service(**QUICK)
    first, second = GpuWorker(service, "first", slots=2), GpuWorker(service, "second", slots=2)
    first.heartbeat()
    name = service.created(initial_instance_count=2)["endpoint_name"]
    first.settle()
    assert count(service, name) == "2"

    def moved() -> bool:
        service.tick()
        return second.heartbeat() == [name] and count(service, name) == "2"

    wait_until(moved)
    first.serving = []  # it is back, and takes one of the two from the crowded one
    assert first.heartbeat() == second.heartbeat() == [name]
    workers = service.wiring.workers.present()
    assert [len(worker["slots_taken"]) for worker in workers] == [1, 1]


def test_the_count_falls_when_the_only_worker_is_lost_and_rises_when_it_returns(
    start_service: StartService,
) -> None:
    service = start_service(**QUICK)
    worker = GpuWorker(service)
    worker.heartbeat()
    name = service.created()["endpoint_name"]
    worker.settle()
    wait_until(lambda: count(service, name) == "0")
    service.tick()
    assert status(service, name) == "InService"
    worker.serving = []  # it has restarted
    worker.settle()
    assert count(service, name) == "1"


def test_a_stopping_worker_gives_its_endpoints_away_at_once(service: Service, worker: GpuWorker) -> None:
    name = service.created()["endpoint_name"]
    worker.settle()
    other = GpuWorker(service, "other")
    other.heartbeat()
    worker.state = "stopping"
    assert worker.heartbeat() == []
    assert other.heartbeat() == [name]
    other.heartbeat()
    assert count(service, name) == "1"


def test_a_stopping_worker_counts_for_no_capacity(service: Service, worker: GpuWorker) -> None:
    worker.state = "stopping"
    worker.heartbeat()
    assert "is 0 Instances" in service.create().json["message"]


def test_instances_spread_over_workers(service: Service, worker: GpuWorker) -> None:
    other = GpuWorker(service, "other")
    other.heartbeat()
    name = service.created(initial_instance_count=2)["endpoint_name"]
    assert worker.heartbeat() == other.heartbeat() == [name]


def test_a_deletion_ends_when_the_worker_has_stopped_serving(
    service: Service, worker: GpuWorker, others: Others
) -> None:
    name = service.created(endpoint_name="one")["endpoint_name"]
    worker.settle()
    service.delete(name)
    assert others.deleted == [{"name": name, "roles": ["artists"], "endpoint_type": "Async"}]
    assert status(service, name) == "Deleting"
    assert worker.heartbeat() == []
    worker.heartbeat()
    assert service.listed() == []
    assert service.created(endpoint_name="one")["endpoint_status"] == "Creating"


def test_a_deletion_waits_until_inference_has_moved_the_jobs(
    service: Service, worker: GpuWorker, others: Others
) -> None:
    others.inference_is_down()
    name = service.created()["endpoint_name"]
    assert service.delete(name).status_code == 200
    assert status(service, name) == "Deleting"
    service.tick()
    assert status(service, name) == "Deleting"
    others.inference_answers()
    service.tick()
    assert (service.listed(), len(others.deleted)) == ([], 1)


def pass_time_until_the_next_notice(service: Service) -> None:
    service.wiring.database["endpoints"].update_many(
        {"notify_at": {"$exists": True}}, {"$set": {"notify_at": now()}}
    )


def test_inference_is_told_again_as_long_as_a_job_may_come_back(service: Service, others: Others) -> None:
    GpuWorker(service).heartbeat()
    name = service.created()["endpoint_name"]
    others.backlog[name] = {"waiting": 0, "running": 1}
    service.delete(name)
    for told in (1, 2, 3):
        assert len(others.deleted) == told
        pass_time_until_the_next_notice(service)
        service.tick()
    others.backlog.clear()
    for _ in range(2):
        pass_time_until_the_next_notice(service)
        service.tick()
    assert len(others.deleted) == 5


def test_inference_is_not_told_again_when_the_name_lives_on(service: Service, others: Others) -> None:
    GpuWorker(service).heartbeat()
    name = service.created(endpoint_name="one")["endpoint_name"]
    service.delete(name)
    service.created(endpoint_name="one")
    pass_time_until_the_next_notice(service)
    service.tick()
    assert len(others.deleted) == 1


def test_scarce_slots_are_shared_when_a_worker_is_lost(start_service: StartService) -> None:
    service = start_service(**QUICK)
    first, second = GpuWorker(service, "first", slots=2), GpuWorker(service, "second", slots=2)
    first.heartbeat(), second.heartbeat()
    large = service.created(initial_instance_count=3)["endpoint_name"]
    small = service.created(initial_instance_count=1, assign_to_roles=["painters"])["endpoint_name"]

    def shared() -> bool:
        second.heartbeat()
        service.tick()
        return (count(service, large), count(service, small)) == ("1", "1")

    wait_until(shared)
    assert sorted(second.serving) == sorted([large, small])


def test_reconciling_what_is_as_wanted_changes_nothing(service: Service, worker: GpuWorker) -> None:
    service.created(initial_instance_count=3)
    worker.settle()
    database = service.wiring.database
    before = [list(database[name].find()) for name in ("endpoints", "workers")]
    for _ in range(3):
        service.tick()
    assert [list(database[name].find()) for name in ("endpoints", "workers")] == before


# autoscaling

SCALED: dict[str, Any] = {"autoscaling_enabled": True, "min_instance_number": "0", "max_instance_number": "3"}


@pytest.fixture()
def scaling(start_service: StartService) -> Service:
    return start_service(AUTOSCALING_COOLDOWN_SECONDS="0.2", AUTOSCALING_BACKLOG_PER_INSTANCE="5")


def asleep(service: Service, worker: GpuWorker) -> str:
    """An endpoint that has scaled to zero."""
    worker.heartbeat()
    name = str(service.created(**SCALED)["endpoint_name"])
    worker.settle()
    assert count(service, name) == "1"
    wait_until(lambda: service.tick() or (worker.heartbeat() == [] and count(service, name) == "0"))
    worker.heartbeat()
    return name


def test_an_idle_endpoint_scales_to_zero_and_stays_in_service(scaling: Service) -> None:
    name = asleep(scaling, GpuWorker(scaling))
    scaling.tick()
    assert status(scaling, name) == "InService"
    assert scaling.get(name)["max_instance_number"] == "3"


def test_a_waiting_job_wakes_a_sleeping_endpoint(scaling: Service, others: Others) -> None:
    worker = GpuWorker(scaling)
    name = asleep(scaling, worker)
    others.backlog[name] = {"waiting": 1, "running": 0}
    scaling.tick()
    assert status(scaling, name) == "Updating"
    assert worker.heartbeat() == [name]
    worker.heartbeat()
    assert (status(scaling, name), count(scaling, name)) == ("InService", "1")


def test_a_question_for_candidates_wakes_the_only_one(scaling: Service) -> None:
    worker = GpuWorker(scaling)
    name = asleep(scaling, worker)
    assert [candidate["instance_count"] for candidate in scaling.candidates()] == [0]
    assert worker.heartbeat() == [name]


def test_a_long_line_brings_more_instances_and_a_short_one_takes_them_away(
    scaling: Service, others: Others
) -> None:
    worker = GpuWorker(scaling)
    name = asleep(scaling, worker)
    others.backlog[name] = {"waiting": 9, "running": 1}
    scaling.tick()
    worker.settle()
    assert count(scaling, name) == "2"
    others.backlog[name] = {"waiting": 100, "running": 2}
    scaling.tick()
    worker.settle()
    assert count(scaling, name) == "3"
    others.backlog[name] = {"waiting": 0, "running": 1}
    wait_until(lambda: scaling.tick() or count(scaling, name) == "1")
    others.backlog[name] = {"waiting": 0, "running": 0}
    wait_until(lambda: scaling.tick() or count(scaling, name) == "0")


def test_nothing_is_scaled_while_inference_does_not_answer(scaling: Service, others: Others) -> None:
    worker = GpuWorker(scaling)
    worker.heartbeat()
    name = scaling.created(**SCALED)["endpoint_name"]
    worker.settle()
    others.inference_is_down()
    scaling.tick()
    endpoint = scaling.wiring.endpoints.live()[0]
    assert (endpoint["quiet_since"], count(scaling, name)) == (None, "1")
