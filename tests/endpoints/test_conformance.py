"""What clients may rely on, whatever endpoints run on: the same tests on workers and on SageMaker."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import Keys
from tests.endpoints.aws import Aws
from tests.endpoints.conformance import CAPACITY, Deployment, Local, SageMaker, served
from tests.endpoints.conftest import Others, StartService, on_sagemaker

BOB = ("sagemaker_endpoint:list", "sagemaker_endpoint:create", "sagemaker_endpoint:delete")
SCALED: dict[str, Any] = {"autoscaling_enabled": True, "min_instance_number": "0", "max_instance_number": "3"}


@pytest.fixture(params=["local", "sagemaker"])
def backend(
    request: pytest.FixtureRequest, start_service: StartService, keys: Keys, others: Others, aws: Aws
) -> Iterator[Deployment]:
    """A deployment on each backend, with room for CAPACITY instances."""
    if request.param == "local":
        app = start_service(BACKENDS="local").client.application
        with served(app) as url:
            local = Local(url, app, keys, others)
            local.serving = {"worker-1": [], "worker-2": []}
            for worker_id in local.serving:
                local.heartbeat(worker_id)
            yield local
        return
    aws.takes_time = True
    aws.quotas["ml.g4dn.xlarge"] = CAPACITY
    app = start_service(**on_sagemaker(aws)).client.application
    with served(app) as url:
        sagemaker = SageMaker(url, app, keys, others)
        sagemaker.aws = aws
        yield sagemaker


# creating


@pytest.mark.parametrize("endpoint_type", ["Async", "Real-time"])
def test_an_endpoint_is_created_and_comes_into_service(backend: Deployment, endpoint_type: str) -> None:
    answer = backend.create(endpoint_type=endpoint_type, endpoint_name="one", initial_instance_count="2")
    name = f"esd-{endpoint_type.lower()}-one"
    assert (answer.status_code, answer.json()["message"]) == (200, f"Endpoint deployment started: {name}")
    assert backend.state(name) == "Creating"
    assert backend.count(name) == "0"
    backend.settle()
    endpoint = backend.get(name)
    assert (endpoint["endpoint_status"], endpoint["current_instance_count"]) == ("InService", "2")
    assert (endpoint["instance_type"], endpoint["error"]) == (backend.instance_type, None)
    assert endpoint["endTime"] >= endpoint["startTime"]


def test_a_name_is_taken_once(backend: Deployment) -> None:
    backend.created(endpoint_name="one")
    second = backend.create(endpoint_name="one", assign_to_roles=["painters"])
    assert (second.status_code, second.json()["message"]) == (
        400,
        'Cannot create already existing model "esd-async-one"',
    )


def test_a_role_has_one_live_endpoint_of_a_type(backend: Deployment) -> None:
    backend.created()
    second = backend.create()
    assert (second.status_code, second.json()["message"]) == (
        400,
        "role [artists] has a valid endpoint already, not allow to have another one",
    )
    assert backend.create(endpoint_type="Real-time").status_code == 200


def test_more_instances_than_there_are_get_the_numbers(backend: Deployment) -> None:
    answer = backend.create(initial_instance_count="5")
    assert answer.status_code == 400
    message = answer.json()["message"]
    assert message.startswith("ResourceLimitExceeded")
    assert f"limit '{backend.instance_type} for endpoint usage' is {CAPACITY} Instances" in message
    assert "with current utilization of 0 Instances and a request delta of 5 Instances" in message
    assert backend.listed() == []
    backend.settle()
    assert not any(backend.leftovers().values())
    assert backend.create(initial_instance_count=str(CAPACITY)).status_code == 200, "nothing was taken"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"initial_instance_count": 0}, "lower than the required minimum (minimum: 1, found: 0)"),
        ({"initial_instance_count": -1}, "lower than the required minimum (minimum: 1, found: -1)"),
        ({"initial_instance_count": "abc"}, "instance type (string) does not match any allowed primitive"),
        ({"initial_instance_count": 1000}, "request delta of 1000 Instances"),
        ({"assign_to_roles": ["ghosts"]}, 'user roles "ghosts" not exist'),
        ({"endpoint_name": "x" * 200}, "is too long (length: 200, maximum allowed: 49)"),
        ({"endpoint_name": "my endpoint"}, 'string "my endpoint" is not a name'),
        ({"endpoint_type": "Serverless"}, "Serverless endpoint is not supported yet"),
        (
            {"endpoint_type": "Real-time", "autoscaling_enabled": True},
            "autoscaling is not supported for Real-time endpoints",
        ),
        ({"backend": "cloud"}, 'instance value ("cloud") not found in enum'),
        (
            {"custom_docker_image_uri": "docker.io/x/y:1"},
            'custom_docker_image_uri "docker.io/x/y:1" is not an image in Amazon ECR',
        ),
    ],
)
def test_bad_input_gets_a_sentence_and_changes_nothing(
    backend: Deployment, changes: dict[str, Any], sentence: str
) -> None:
    answer = backend.create(**changes)
    assert answer.status_code == 400
    assert sentence in answer.json()["message"]
    assert backend.listed() == []
    backend.settle()
    assert not any(backend.leftovers().values())


def test_an_unknown_instance_type_is_refused(backend: Deployment) -> None:
    answer = backend.create(instance_type=backend.unknown_instance_type)
    assert answer.status_code == 400
    assert backend.listed() == []
    backend.settle()
    assert not any(backend.leftovers().values())


# being there


def test_endpoints_are_listed_newest_first_with_their_instances(backend: Deployment) -> None:
    first = backend.created()
    second = backend.created(assign_to_roles=["painters"])
    backend.settle()
    assert backend.listed() == [second, first]
    answer = backend.call("GET", f"/endpoints/{first}/instances").json()["data"]["instances"]
    assert [(instance["instance_type"], instance["ready"]) for instance in answer] == [
        (backend.instance_type, True)
    ]


def test_jobs_find_an_endpoint_that_is_being_made_and_one_in_service(backend: Deployment) -> None:
    name = backend.created()
    assert [candidate["name"] for candidate in backend.candidates()] == [name]
    backend.settle()
    [candidate] = backend.candidates()
    assert (candidate["name"], candidate["status"], candidate["instance_count"]) == (name, "InService", 1)


def test_an_endpoint_that_never_gets_ready_fails_with_the_reason(backend: Deployment) -> None:
    name = backend.created()
    backend.break_down(name)
    endpoint = backend.get(name)
    assert endpoint["endpoint_status"] == "Failed"
    assert endpoint["error"]
    assert backend.candidates() == []
    assert backend.create().status_code == 200, "a failed endpoint keeps no role"
    backend.delete(name)
    backend.settle()
    assert name not in backend.listed()


# Invoking, its failures, cancelling and deleting while a job runs need the inference service and the worker's
# own fronts: tests/api/test_backends.py does them through the gateway, on both backends.


# scaling


def test_an_endpoint_is_updating_while_it_scales_and_counts_what_is_there(backend: Deployment) -> None:
    name = backend.in_service(**SCALED)
    assert backend.get(name)["max_instance_number"] == "3"
    backend.begin_scaling_to(name, 3)
    assert backend.state(name) == "Updating"
    backend.settle()
    assert (backend.state(name), backend.count(name)) == ("InService", "3")


# going


def test_an_endpoint_is_deleted_with_all_that_it_had(backend: Deployment) -> None:
    name = backend.in_service(endpoint_name="one", **SCALED)
    assert any(backend.leftovers().values())
    assert backend.delete(name).status_code == 200
    assert backend.candidates() == []
    assert backend.state(name) == "Deleting"
    backend.settle()
    assert backend.listed() == []
    assert not any(backend.leftovers().values())
    assert backend.created(endpoint_name="one") == name, "its name is free"


def test_a_deletion_while_jobs_run_tells_inference_and_waits_for_them(backend: Deployment) -> None:
    name = backend.in_service()
    backend.others.backlog[name] = {"waiting": 0, "running": 1}
    assert backend.delete(name).status_code == 200
    assert [told["name"] for told in backend.others.deleted] == [name]
    for _ in range(2):
        if isinstance(backend, SageMaker):
            backend.wiring.controller.synchronise()
        backend.wiring.controller.tick()
    assert backend.state(name) == "Deleting"
    if isinstance(backend, SageMaker):
        assert backend.aws.calls["DeleteEndpoint"] == 0, "the job runs on"
    backend.others.backlog.clear()
    backend.pass_time_until_the_next_notice()
    backend.settle()
    assert backend.listed() == []
    assert not any(backend.leftovers().values())


def test_deleting_what_is_absent_or_deleted_already_changes_nothing(backend: Deployment) -> None:
    name = backend.in_service()
    assert backend.delete("esd-async-nothing").status_code == 200
    assert backend.listed() == [name]
    for _ in range(2):
        assert backend.delete(name).status_code == 200
    backend.settle()
    assert backend.delete(name).status_code == 200
    assert backend.listed() == []
    assert not any(backend.leftovers().values())


def test_nobody_deletes_somebody_elses_endpoint(backend: Deployment) -> None:
    seen = backend.in_service(assign_to_roles=["painters"])
    hidden = backend.in_service(assign_to_roles=["singers"])
    bob = backend.keys.user("bob", roles=("painters",), permissions=BOB)
    refused = backend.delete(seen, headers=bob)
    assert (refused.status_code, refused.json()["message"]) == (
        403,
        f"endpoint {seen} belongs to another user: only its creator may delete it",
    )
    assert backend.delete(hidden, headers=bob).status_code == 200
    backend.settle()
    assert (backend.state(seen), backend.state(hidden)) == ("InService", "InService")
