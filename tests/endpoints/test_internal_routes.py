"""What GPU workers and other services ask."""

import time

from tests.conftest import Keys
from tests.endpoints.conftest import GpuWorker, Service


def test_a_worker_is_told_what_to_serve(service: Service, keys: Keys, worker: GpuWorker) -> None:
    endpoint = service.created()
    body = {"instance_type": "local.cpu", "state": "idle", "slots": 4}
    answer = service.client.post(
        "/internal/workers/worker-1/heartbeat", json=body, headers=keys.worker("worker-1")
    )
    assert answer.json == {
        "endpoints": [
            {
                "id": endpoint["EndpointDeploymentJobId"],
                "name": endpoint["endpoint_name"],
                "type": "Async",
            }
        ]
    }


def test_a_worker_speaks_for_itself_only(service: Service, keys: Keys) -> None:
    body = {"instance_type": "local.cpu", "state": "idle", "slots": 4}
    path = "/internal/workers/worker-1/heartbeat"
    assert service.client.post(path, json=body, headers=keys.worker("worker-2")).status_code == 403
    assert service.client.post(path, json=body, headers=keys.service()).status_code == 401
    assert service.client.post(path, json=body, headers=keys.user()).status_code == 401


def test_a_heartbeat_of_the_wrong_shape_is_refused(service: Service, keys: Keys) -> None:
    path = "/internal/workers/worker-1/heartbeat"
    answer = service.client.post(path, json={"state": "asleep"}, headers=keys.worker())
    assert answer.status_code == 400
    assert answer.json["errors"].keys() == {"instance_type", "slots", "state"}


def test_two_instances_on_one_worker_are_one_endpoint_to_serve(service: Service, worker: GpuWorker) -> None:
    name = service.created(initial_instance_count=2)["endpoint_name"]
    assert worker.heartbeat() == [name]
    worker.heartbeat()
    assert service.get(name)["current_instance_count"] == "2"


def test_a_heartbeat_that_changes_nothing_is_quick(service: Service, worker: GpuWorker) -> None:
    service.created()
    worker.settle()
    durations = []
    for _ in range(50):
        began = time.perf_counter()
        worker.heartbeat()
        durations.append((time.perf_counter() - began) * 1000)
    median = sorted(durations)[25]
    assert median < 20, f"{median:.1f} ms"  # 5 ms on an idle machine; tests share theirs


def test_candidates_are_endpoints_of_the_users_roles_that_take_jobs(
    service: Service, worker: GpuWorker
) -> None:
    endpoint = service.created(endpoint_name="one")
    service.created(endpoint_name="two", assign_to_roles=["painters"])
    worker.settle()
    assert service.candidates() == [
        {
            "id": endpoint["EndpointDeploymentJobId"],
            "name": "esd-async-one",
            "type": "Async",
            "instance_type": "local.cpu",
            "backend": "local",
            "status": "InService",
            "roles": ["artists"],
            "instance_count": 1,
            "sagemaker_endpoint_name": None,
            "sagemaker_output_path": None,
            "sagemaker_failure_path": None,
        }
    ]
    assert service.candidates(endpoint_type="Real-time") == []
    assert service.candidates(name="esd-async-two") == []
    assert len(service.candidates(see_all=True)) == 2
    assert len(service.candidates(name=endpoint["EndpointDeploymentJobId"])) == 1


def test_an_endpoint_that_is_being_deleted_takes_no_more_jobs(service: Service, worker: GpuWorker) -> None:
    name = service.created()["endpoint_name"]
    worker.settle()
    service.delete(name)
    assert service.get(name)["endpoint_status"] == "Deleting"
    assert service.candidates() == []


def test_services_see_the_workers(service: Service, keys: Keys, worker: GpuWorker) -> None:
    name = service.created()["endpoint_name"]
    worker.settle()
    expected = {
        "workers": [
            {
                "id": "worker-1",
                "state": "idle",
                "instance_type": "local.cpu",
                "endpoints": [name],
                "slots": 4,
            }
        ]
    }
    assert service.ask("/internal/workers", {}) == expected
    assert service.client.get("/internal/workers", headers=keys.service()).json == expected
    assert service.client.get("/internal/workers", headers=keys.user()).status_code == 401


def test_services_ask_for_an_endpoint_by_id_as_a_user_sees_it(service: Service, worker: GpuWorker) -> None:
    created = service.created()
    question = {"id": created["EndpointDeploymentJobId"], "username": "eve", "roles": ["singers"]}
    assert service.ask("/internal/endpoint", question) == {"endpoint": None}
    shown = service.get(created["endpoint_name"])
    for seen in ({"roles": ["artists"]}, {"username": "ann"}, {"see_all": True}):
        assert service.ask("/internal/endpoint", question | seen) == {"endpoint": shown}
    by_name = question | {"id": created["endpoint_name"], "see_all": True}
    assert service.ask("/internal/endpoint", by_name) == {"endpoint": None}
