"""Older clients ask for an endpoint's deployment where jobs are asked for."""

from tests.inference.conftest import Service

DEPLOYMENT = {"EndpointDeploymentJobId": "e1", "endpoint_status": "Failed", "error": "no worker"}


def test_the_id_of_a_deployment_answers_as_the_endpoint_does(service: Service) -> None:
    service.others.answers["endpoint"] = lambda body: {"endpoint": DEPLOYMENT}
    answer = service.get("/inferences/e1", username="ben", roles=("artists",))
    assert (answer.status_code, answer.json["data"]) == (200, DEPLOYMENT)
    assert service.others.calls[-1] == (
        "endpoint",
        {"id": "e1", "username": "ben", "roles": ["artists"], "see_all": True},
    )


def test_a_deployment_is_hidden_from_those_who_may_not_see_endpoints(service: Service) -> None:
    service.others.answers["endpoint"] = lambda body: {"endpoint": DEPLOYMENT}
    answer = service.get("/inferences/e1", permissions=("inference:list",))
    assert (answer.status_code, answer.json["message"]) == (404, "inference with id e1 not found")
    assert service.others.calls == []


def test_a_job_is_answered_without_asking_for_deployments(service: Service) -> None:
    job_id = service.started()
    service.others.calls.clear()
    assert service.get(f"/inferences/{job_id}").json["data"]["InferenceJobId"] == job_id
    assert "endpoint" not in [name for name, _ in service.others.calls]
