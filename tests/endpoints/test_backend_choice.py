"""Which backend an endpoint is on."""

from tests.endpoints.aws import Aws
from tests.endpoints.conftest import GpuWorker, Service, StartService, on_sagemaker


def test_the_first_backend_is_for_endpoints_that_name_none(start_service: StartService, aws: Aws) -> None:
    service = start_service(**on_sagemaker(aws))
    GpuWorker(service).heartbeat()
    assert service.created(instance_type="ml.g4dn.xlarge")["backend"] == "sagemaker"
    assert service.created(backend="local", assign_to_roles=["painters"])["backend"] == "local"
    assert len(aws.names()["endpoints"]) == 1


def test_a_backend_that_is_not_configured_is_refused(service: Service, worker: GpuWorker) -> None:
    answer = service.create(backend="sagemaker")
    assert (answer.status_code, answer.json["message"]) == (
        400,
        'backend "sagemaker" is not configured in this deployment, which has: local',
    )
    assert service.listed() == []
    assert service.create(backend="local").status_code == 200


def test_capacity_is_counted_for_each_backend_alone(start_service: StartService, aws: Aws) -> None:
    service = start_service(**on_sagemaker(aws))
    GpuWorker(service, instance_type="ml.g4dn.xlarge", slots=1).heartbeat()
    service.created(instance_type="ml.g4dn.xlarge", initial_instance_count=3)
    on_workers = {"instance_type": "ml.g4dn.xlarge", "backend": "local"}
    assert service.create(**on_workers, assign_to_roles=["painters"]).status_code == 200
    third = service.create(**on_workers, assign_to_roles=["singers"])
    assert "is 1 Instances, with current utilization of 1 Instances" in third.json["message"]


def test_endpoints_of_a_backend_that_was_taken_away_are_left_alone(
    start_service: StartService, aws: Aws
) -> None:
    before = start_service(**on_sagemaker(aws))
    name = before.created(instance_type="ml.g4dn.xlarge")["endpoint_name"]
    kept = before.wiring.endpoints.live()
    service = start_service()
    service.wiring.database["endpoints"].insert_many(kept)
    service.tick()
    service.wiring.controller.synchronise()
    endpoint = service.get(name)
    assert (endpoint["endpoint_status"], endpoint["current_instance_count"]) == ("InService", "0")
    assert service.client.get(f"/endpoints/{name}/instances", headers=service.keys.user()).json["data"] == {
        "instances": []
    }
    service.delete(name)
    service.tick()
    assert service.get(name)["endpoint_status"] == "Deleting"
