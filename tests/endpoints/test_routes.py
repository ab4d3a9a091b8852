"""The public routes of endpoints, as the contract words them."""

from typing import Any

import pytest

from services.common.identity import HEADER, undeclared_routes
from services.endpoints.repository import Endpoints
from tests.conftest import Keys
from tests.endpoints.conftest import GpuWorker, Others, Service, StartService

pytestmark = pytest.mark.usefixtures("worker")

BOB = ("sagemaker_endpoint:list", "sagemaker_endpoint:create", "sagemaker_endpoint:delete")


def test_every_route_declares_its_right(service: Service) -> None:
    assert list(undeclared_routes(service.client.application)) == []


def test_creation_answers_the_endpoint_in_state_creating(service: Service) -> None:
    answer = service.create(endpoint_name="one")
    assert answer.status_code == 200
    assert answer.json["statusCode"] == 200
    assert answer.json["message"] == "Endpoint deployment started: esd-async-one"
    endpoint = answer.json["data"]
    assert endpoint.pop("EndpointDeploymentJobId")
    assert endpoint.pop("startTime")
    assert endpoint == {
        "autoscaling": False,
        "max_instance_number": "1",
        "status": None,
        "instance_type": "local.cpu",
        "current_instance_count": "0",
        "endTime": None,
        "endpoint_status": "Creating",
        "endpoint_name": "esd-async-one",
        "error": None,
        "endpoint_type": "Async",
        "owner_group_or_role": ["artists"],
        "backend": "local",
    }


def test_an_endpoint_without_a_name_is_named_by_its_id(service: Service) -> None:
    endpoint = service.created(endpoint_type="Real-time")
    assert endpoint["endpoint_name"] == f"esd-real-time-{endpoint['EndpointDeploymentJobId'][:7]}"


def test_the_older_form_makes_an_async_endpoint_for_the_callers_roles(service: Service, keys: Keys) -> None:
    user = keys.user(roles=("artists", "painters"))
    body = {"instance_type": "local.cpu", "initial_instance_count": "2"}
    answer = service.client.post("/endpoints", json=body, headers=user)
    assert answer.status_code == 200
    endpoint = answer.json["data"]
    assert (endpoint["endpoint_type"], endpoint["autoscaling"]) == ("Async", False)
    assert endpoint["owner_group_or_role"] == ["artists", "painters"]


def test_the_older_form_needs_a_role(service: Service, keys: Keys) -> None:
    body = {"instance_type": "local.cpu", "initial_instance_count": 1}
    answer = service.client.post("/endpoints", json=body, headers=keys.user(roles=()))
    assert (answer.status_code, answer.json["message"]) == (
        400,
        "you have no role: an endpoint belongs to one role or more",
    )


def test_missing_fields_are_named(service: Service, keys: Keys) -> None:
    everything = service.client.post("/endpoints", json={}, headers=keys.user()).json
    assert everything["message"] == (
        'object has missing required properties (["assign_to_roles","autoscaling_enabled","creator",'
        '"endpoint_type","initial_instance_count","instance_type"])'
    )
    one = service.create(creator=None)
    assert one.status_code == 400
    assert one.json["message"] == 'object has missing required properties (["creator"])'
    older = service.client.post("/endpoints", json={"instance_type": "local.cpu"}, headers=keys.user()).json
    assert older["message"] == 'object has missing required properties (["initial_instance_count"])'


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"initial_instance_count": 0}, "lower than the required minimum (minimum: 1, found: 0)"),
        ({"initial_instance_count": -1}, "lower than the required minimum (minimum: 1, found: -1)"),
        ({"initial_instance_count": "-1"}, "lower than the required minimum (minimum: 1, found: -1)"),
        ({"initial_instance_count": "abc"}, "instance type (string) does not match any allowed primitive"),
        ({"initial_instance_count": 1.5}, "instance type (number) does not match any allowed primitive"),
        (
            {"initial_instance_count": 1000},
            "ResourceLimitExceeded: the limit 'local.cpu for endpoint usage' is 4 Instances, "
            "with current utilization of 0 Instances and a request delta of 1000 Instances",
        ),
        (
            {"instance_type": "ml.p9.huge"},
            "'ml.p9.huge for endpoint usage' is 0 Instances, with current utilization of 0 Instances and "
            "a request delta of 1 Instances (instance types with capacity: local.cpu)",
        ),
        ({"instance_type": ""}, 'string "" is too short (length: 0, required minimum: 1)'),
        ({"instance_type": 7}, "instance type (integer) does not match any allowed primitive type"),
        ({"assign_to_roles": []}, "array is too short: must have at least 1 elements"),
        ({"assign_to_roles": ["artists", "ghosts"]}, 'user roles "ghosts" not exist'),
        ({"endpoint_name": "x" * 200}, "is too long (length: 200, maximum allowed: 49)"),
        ({"endpoint_name": "my endpoint"}, 'string "my endpoint" is not a name'),
        ({"endpoint_name": "../etc"}, 'string "../etc" is not a name'),
        ({"endpoint_name": "one\n"}, "is not a name"),
        ({"endpoint_type": "Serverless"}, "Serverless endpoint is not supported yet"),
        (
            {"endpoint_type": "Batch"},
            'instance value ("Batch") not found in enum '
            '(possible values: ["Async","Real-time","Serverless"])',
        ),
        (
            {"endpoint_type": "Real-time", "autoscaling_enabled": True},
            "autoscaling is not supported for Real-time endpoints",
        ),
        (
            {"autoscaling_enabled": True, "initial_instance_count": 3, "max_instance_number": "2"},
            "initial_instance_count 3 is not between min_instance_number 0 and max_instance_number 2",
        ),
        ({"autoscaling_enabled": "maybe"}, "instance type (string) does not match any allowed primitive"),
        ({"creator": "ghost"}, 'user: "ghost" not exist'),
    ],
)
def test_bad_input_gets_a_clear_sentence_and_changes_nothing(
    service: Service, changes: dict[str, Any], sentence: str
) -> None:
    answer = service.create(**changes)
    assert answer.status_code == 400
    assert sentence in answer.json["message"]
    assert service.listed() == []


def test_a_body_that_is_no_object_is_refused(service: Service, keys: Keys) -> None:
    for body in (b"{", b"[]", b'"x"'):
        answer = service.client.post("/endpoints", data=body, headers=keys.user())
        assert (answer.status_code, answer.json["message"]) == (400, "Invalid request body")


def test_calls_without_a_good_token_or_the_right_are_refused(service: Service, keys: Keys) -> None:
    assert service.client.get("/endpoints").status_code == 401
    assert service.client.get("/endpoints", headers={HEADER: "nonsense"}).status_code == 401
    assert service.client.get("/endpoints", headers=keys.service()).status_code == 401
    weak = keys.user(permissions=("sagemaker_endpoint:list",))
    assert service.create(user=weak).status_code == 403
    assert service.delete("x", user=weak).status_code == 403
    assert service.client.get("/endpoints", headers=keys.user(permissions=())).status_code == 403


def test_acting_for_somebody_else_needs_the_right_to(service: Service, keys: Keys) -> None:
    bob = keys.user("bob", permissions=BOB)
    assert service.create(user=bob, creator="ann").status_code == 403
    assert service.create(user=keys.user("ann"), creator="bob").status_code == 200


def test_a_role_has_one_live_endpoint_of_each_type(service: Service) -> None:
    service.created(assign_to_roles=["artists", "painters"])
    second = service.create(assign_to_roles=["singers", "painters"])
    assert second.status_code == 400
    assert second.json["message"] == (
        "role [painters] has a valid endpoint already, not allow to have another one"
    )
    assert service.create(endpoint_type="Real-time", assign_to_roles=["painters"]).status_code == 200


def test_a_name_is_taken_once(service: Service) -> None:
    service.created(endpoint_name="one")
    second = service.create(endpoint_name="one", assign_to_roles=["painters"])
    assert second.status_code == 400
    assert second.json["message"] == 'Cannot create already existing model "esd-async-one"'


def test_capacity_counts_what_others_want(service: Service) -> None:
    service.created(initial_instance_count=3)
    second = service.create(initial_instance_count="2", assign_to_roles=["painters"])
    assert second.status_code == 400
    assert (
        "is 4 Instances, with current utilization of 3 Instances and a request delta of 2"
        in (second.json["message"])
    )
    assert service.create(initial_instance_count=1, assign_to_roles=["painters"]).status_code == 200


def test_a_configured_ceiling_replaces_the_registered_slots(start_service: StartService) -> None:
    service = start_service(ENDPOINT_CAPACITY="local.cpu=1, ml.g5.2xlarge=8")
    GpuWorker(service).heartbeat()
    assert "is 1 Instances" in service.create(initial_instance_count=2).json["message"]
    assert service.create(instance_type="ml.g5.2xlarge", initial_instance_count=8).status_code == 200


def test_a_refused_creation_takes_no_capacity_and_no_role(service: Service) -> None:
    assert service.create(initial_instance_count=5).status_code == 400
    assert service.create(initial_instance_count=4).status_code == 200


def test_a_repeat_with_the_same_idempotency_key_returns_the_first_answer(
    service: Service, keys: Keys, worker: GpuWorker
) -> None:
    user = keys.user() | {"Idempotency-Key": "k1"}
    first = service.create(user=user)
    worker.settle()
    again = service.create(user=user)
    assert (again.status_code, again.json) == (200, first.json)
    assert len(service.listed()) == 1
    other = keys.user("bob") | {"Idempotency-Key": "k1"}
    assert service.create(user=other, creator="bob", assign_to_roles=["painters"]).status_code == 200


def test_a_failed_creation_does_not_use_up_the_idempotency_key(service: Service, keys: Keys) -> None:
    user = keys.user() | {"Idempotency-Key": "k2"}
    assert service.create(user=user, initial_instance_count=9).status_code == 400
    assert service.create(user=user).status_code == 200


def test_users_see_their_own_endpoints_and_those_of_their_roles(service: Service, keys: Keys) -> None:
    bob = keys.user("bob", roles=("painters",), permissions=BOB)
    own = service.created(user=bob, creator="bob", assign_to_roles=["dancers"])["endpoint_name"]
    of_role = service.created(assign_to_roles=["painters"])["endpoint_name"]
    hidden = service.created(assign_to_roles=["artists"])["endpoint_name"]
    assert [endpoint["endpoint_name"] for endpoint in service.listed(user=bob)] == [of_role, own]
    assert len(service.listed()) == 3
    for path in (f"/endpoints/{hidden}", f"/endpoints/{hidden}/instances", "/endpoints/nothing"):
        assert service.client.get(path, headers=bob).status_code == 404
    assert service.get(of_role, user=bob)["endpoint_name"] == of_role


def test_an_endpoint_is_found_by_name_and_by_id(service: Service, keys: Keys) -> None:
    endpoint = service.created(endpoint_name="one")
    assert service.get("esd-async-one") == service.get(endpoint["EndpointDeploymentJobId"])
    missing = service.client.get("/endpoints/esd-async-two", headers=keys.user())
    assert (missing.status_code, missing.json["message"]) == (404, "endpoint esd-async-two not found")


def test_the_list_of_another_user_holds_what_they_created(service: Service, keys: Keys) -> None:
    service.created(endpoint_name="anns")
    service.created(endpoint_name="bobs", creator="bob", assign_to_roles=["painters"])
    assert [e["endpoint_name"] for e in service.listed(query="?username=bob")] == ["esd-async-bobs"]
    assert len(service.listed(query="?username=ann")) == 2
    unknown = service.client.get("/endpoints?username=ghost", headers=keys.user())
    assert (unknown.status_code, unknown.json["message"]) == (400, 'user: "ghost" not exist')


def test_the_list_comes_in_pages(service: Service, keys: Keys) -> None:
    names = [service.created(assign_to_roles=[role])["endpoint_name"] for role in ("artists", "painters")]
    first = service.client.get("/endpoints?limit=1", headers=keys.user()).json["data"]
    assert [e["endpoint_name"] for e in first["endpoints"]] == names[1:]
    rest = f"/endpoints?limit=1&last_evaluated_key={first['last_evaluated_key']}"
    second = service.client.get(rest, headers=keys.user()).json["data"]
    assert [e["endpoint_name"] for e in second["endpoints"]] == names[:1]
    assert second["last_evaluated_key"] is None


def test_deletion_takes_names_and_ids_and_ignores_absent_ones(service: Service, others: Others) -> None:
    by_name = service.created(assign_to_roles=["artists"])["endpoint_name"]
    by_id = service.created(assign_to_roles=["painters"])["EndpointDeploymentJobId"]
    answer = service.delete(by_name, by_id, "esd-async-nothing")
    assert (answer.status_code, answer.json["data"]) == (200, {})
    assert service.listed() == []
    assert sorted(told["roles"][0] for told in others.deleted) == ["artists", "painters"]
    assert service.delete(by_name).status_code == 200


def test_deletion_takes_the_newer_name_of_the_list(service: Service, keys: Keys) -> None:
    name = service.created()["endpoint_name"]
    body = {"endpoint_name_list": [name]}
    assert service.client.delete("/endpoints", json=body, headers=keys.user()).status_code == 200
    assert service.listed() == []


def test_deletion_names_what_is_missing(service: Service, keys: Keys) -> None:
    answer = service.client.delete("/endpoints", json={}, headers=keys.user())
    assert (answer.status_code, answer.json["message"]) == (
        400,
        'object has missing required properties (["delete_endpoint_list","username"])',
    )
    empty = service.client.delete("/endpoints", json={"endpoint_name_list": []}, headers=keys.user())
    assert (empty.status_code, empty.json["message"]) == (
        400,
        "array is too short: must have at least 1 elements but instance has 0 elements",
    )


def test_nobody_deletes_somebody_elses_endpoint(service: Service, keys: Keys) -> None:
    of_role = service.created(assign_to_roles=["painters"])["endpoint_name"]
    hidden = service.created(assign_to_roles=["artists"])["endpoint_name"]
    bob = keys.user("bob", roles=("painters",), permissions=BOB)
    own = service.created(user=bob, creator="bob", assign_to_roles=["dancers"])["endpoint_name"]
    body = {"endpoint_name_list": [own, of_role]}
    refused = service.client.delete("/endpoints", json=body, headers=bob)
    assert refused.status_code == 403
    assert refused.json["message"] == (
        f"endpoint {of_role} belongs to another user: only its creator may delete it"
    )
    named = {"delete_endpoint_list": [own], "username": "ann"}
    assert service.client.delete("/endpoints", json=named, headers=bob).status_code == 403
    unseen = service.client.delete("/endpoints", json={"endpoint_name_list": [hidden]}, headers=bob)
    assert unseen.status_code == 200
    assert len(service.listed()) == 3


def test_a_deleted_endpoint_frees_its_name_role_and_capacity(service: Service) -> None:
    for _ in range(3):
        name = service.created(endpoint_name="again", initial_instance_count=4)["endpoint_name"]
        service.delete(name)
    assert service.listed() == []


def test_instances_show_workers_and_what_they_do(service: Service, keys: Keys, worker: GpuWorker) -> None:
    name = service.created(initial_instance_count=2)["endpoint_name"]
    worker.loaded, worker.running, worker.state = ["shapes-v1.safetensors"], ["job-1"], "busy"
    worker.settle()
    path = f"/endpoints/{name}/instances"
    (instance,) = service.client.get(path, headers=keys.user()).json["data"]["instances"]
    assert instance.pop("last_heartbeat")
    assert instance == {
        "worker_id": "worker-1",
        "host": "box",
        "instance_type": "local.cpu",
        "device": "cpu",
        "device_name": "two cores",
        "memory_bytes": 8 * 2**30,
        "version": "0.1.0",
        "state": "busy",
        "instances": 2,
        "ready": True,
        "jobs_running": 1,
        "loaded": ["shapes-v1.safetensors"],
        "running": ["job-1"],
    }
    limited = keys.user("bob", roles=("artists",), permissions=BOB)
    (instance,) = service.client.get(path, headers=limited).json["data"]["instances"]
    assert (instance["jobs_running"], instance["loaded"], instance["running"]) == (1, [], [])


def test_health_and_the_api_document_are_open(service: Service) -> None:
    assert service.client.get("/healthz").status_code == 200
    assert service.client.get("/readyz").status_code == 200
    assert "/endpoints" in service.client.get("/internal/openapi.json").json["paths"]


def test_indexes_can_be_made_again(service: Service) -> None:
    Endpoints(service.wiring.database).ensure_indexes()
