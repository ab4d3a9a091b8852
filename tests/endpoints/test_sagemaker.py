"""Endpoints on SageMaker: what is made there, and what goes wrong there."""

import itertools
import threading
from typing import Any

import pytest

from services.common.times import now
from services.endpoints.backends.sagemaker.repository import Deployments, Superseded
from tests.conftest import Keys
from tests.endpoints.aws import IMAGE, ROLE, Aws, Refusal
from tests.endpoints.conftest import Others, Service, StartService, on_sagemaker

ML = "ml.g4dn.xlarge"
SCALED: dict[str, Any] = {"autoscaling_enabled": True, "min_instance_number": "0", "max_instance_number": "3"}
KINDS = ("models", "configurations", "endpoints", "targets", "policies", "alarms")
NOTHING: dict[str, list[str]] = {kind: [] for kind in KINDS}
THROTTLED = Refusal("ThrottlingException", "Rate exceeded")
DENIED = Refusal("AccessDeniedException", "User is not authorized to perform: sagemaker:CreateModel")


@pytest.fixture()
def service(start_service: StartService, aws: Aws) -> Service:
    return start_service(**on_sagemaker(aws))


def synchronise(service: Service) -> None:
    service.wiring.controller.synchronise()


def settled(service: Service, **changes: Any) -> str:
    """The name of an endpoint in service."""
    name = str(service.created(instance_type=ML, **changes)["endpoint_name"])
    synchronise(service)
    assert service.get(name)["endpoint_status"] == "InService"
    return name


# what is made


def test_an_async_endpoint_gets_its_model_configuration_and_endpoint(service: Service, aws: Aws) -> None:
    endpoint = service.created(instance_type=ML, initial_instance_count=2, endpoint_name="x" * 49)
    [candidate] = service.candidates()
    name = candidate["sagemaker_endpoint_name"]
    digits = endpoint["EndpointDeploymentJobId"].replace("-", "")[:12]
    assert (candidate["backend"], name) == ("sagemaker", f"esd-async-{'x' * 40}-{digits}")
    client, bucket = aws.client("sagemaker"), service.environment["S3_BUCKET"]
    model = client.describe_model(ModelName=name)
    assert (model["ExecutionRoleArn"], model["PrimaryContainer"]["Image"]) == (ROLE, IMAGE)
    assert model["PrimaryContainer"]["Environment"] == {"LOG_LEVEL": "INFO", "WORKER_DISK_CACHE_GB": "20"}
    configuration = client.describe_endpoint_config(EndpointConfigName=name)
    [variant] = configuration["ProductionVariants"]
    assert (variant["ModelName"], variant["InstanceType"], variant["InitialInstanceCount"]) == (name, ML, 2)
    assert configuration["AsyncInferenceConfig"] == {
        "OutputConfig": {
            "S3OutputPath": candidate["sagemaker_output_path"],
            "S3FailurePath": candidate["sagemaker_failure_path"],
        },
        "ClientConfig": {"MaxConcurrentInvocationsPerInstance": 1},
    }
    assert candidate["sagemaker_output_path"] == f"s3://{bucket}/sagemaker_output"
    assert client.describe_endpoint(EndpointName=name)["EndpointConfigName"] == name
    assert aws.names()["targets"] == []


def test_a_real_time_endpoint_with_an_image_of_its_own(service: Service, aws: Aws) -> None:
    image = IMAGE.replace("1.0", "2.0")
    service.created(instance_type=ML, endpoint_type="Real-time", custom_docker_image_uri=image)
    [name] = aws.names()["models"]
    client = aws.client("sagemaker")
    assert client.describe_model(ModelName=name)["PrimaryContainer"]["Image"] == image
    assert "AsyncInferenceConfig" not in client.describe_endpoint_config(EndpointConfigName=name)


def test_without_any_image_an_endpoint_is_refused(start_service: StartService, aws: Aws) -> None:
    service = start_service(**on_sagemaker(aws) | {"SAGEMAKER_IMAGE_URI": ""})
    answer = service.create(instance_type=ML)
    assert (answer.status_code, "SAGEMAKER_IMAGE_URI" in answer.json["message"]) == (400, True)
    assert service.create(instance_type=ML, custom_docker_image_uri=IMAGE).status_code == 200


def test_auto_scaling_is_set_up_once_when_the_endpoint_is_in_service(service: Service, aws: Aws) -> None:
    aws.takes_time = True
    service.created(instance_type=ML, **SCALED)
    synchronise(service)
    assert aws.names()["targets"] == [], "SageMaker takes none before"
    aws.pass_time()
    for _ in range(3):
        synchronise(service)
    [name] = aws.names()["endpoints"]
    resource = f"endpoint/{name}/variant/main"
    scaling = aws.client("application-autoscaling")
    [target] = scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"]
    assert (target["ResourceId"], target["MinCapacity"], target["MaxCapacity"]) == (resource, 0, 3)
    follow, wake = scaling.describe_scaling_policies(ServiceNamespace="sagemaker")["ScalingPolicies"]
    tracking = follow["TargetTrackingScalingPolicyConfiguration"]
    assert tracking["CustomizedMetricSpecification"]["MetricName"] == "ApproximateBacklogSizePerInstance"
    assert (tracking["TargetValue"], tracking["ScaleInCooldown"]) == (5.0, 120)
    [alarm] = aws.client("cloudwatch").describe_alarms()["MetricAlarms"]
    assert alarm["AlarmName"] == f"{name}-HasBacklogWithoutCapacity"
    assert alarm["AlarmActions"] == [wake["PolicyARN"]]
    assert alarm["Dimensions"] == [{"Name": "EndpointName", "Value": name}]
    assert aws.calls["PutScalingPolicy"] == 2


def test_scaling_is_left_to_aws(service: Service, aws: Aws, others: Others) -> None:
    name = settled(service, **SCALED)
    others.backlog[name] = {"waiting": 100, "running": 0}
    service.tick()
    service.candidates()
    assert [endpoint["wanted"] for endpoint in service.wiring.endpoints.live()] == [1]
    aws.scale(0)
    synchronise(service)
    endpoint = service.get(name)
    assert (endpoint["endpoint_status"], endpoint["current_instance_count"]) == ("InService", "0")


# what is refused


def test_a_configured_ceiling_counts_what_autoscaling_may_reach(
    start_service: StartService, aws: Aws
) -> None:
    service = start_service(**on_sagemaker(aws) | {"SAGEMAKER_CAPACITY": f"{ML}=4"})
    service.created(instance_type=ML, **SCALED)
    second = service.create(instance_type=ML, initial_instance_count=2, assign_to_roles=["painters"])
    assert (
        "is 4 Instances, with current utilization of 3 Instances and a request delta of 2"
        in (second.json["message"])
    )


def test_an_unknown_instance_type_is_told_in_short(service: Service, aws: Aws) -> None:
    answer = service.create(instance_type="ml.abacus")
    assert (answer.status_code, answer.json["message"]) == (
        400,
        "SageMaker does not know this instance_type: use one of its own, such as ml.g5.2xlarge",
    )


def test_missing_permissions_are_the_administrators_to_give(service: Service, aws: Aws, keys: Keys) -> None:
    aws.refusals["CreateModel"] = Refusal(**vars(DENIED))
    user = keys.user() | {"Idempotency-Key": "denied"}
    answer = service.create(user=user, instance_type=ML)
    assert answer.status_code == 502
    assert "not authorized to perform: sagemaker:CreateModel" in answer.json["message"]
    assert "docs/aws.md" in answer.json["message"]
    assert service.listed() == []
    assert service.create(user=user, instance_type=ML).status_code == 200, "the key is not used up"


def test_a_refusal_at_the_last_step_leaves_nothing(service: Service, aws: Aws) -> None:
    aws.quotas[ML] = 0
    assert "ResourceLimitExceeded" in service.create(instance_type=ML).json["message"]
    assert aws.names()["models"], "it had begun"
    synchronise(service)
    assert aws.names() == NOTHING
    aws.calls.clear()
    synchronise(service)
    assert not aws.calls, "nothing is looked after any more"


def test_an_endpoint_takes_no_job_before_aws_has_begun_to_make_it(service: Service, aws: Aws) -> None:
    seen: list[Any] = []
    aws.before = lambda action: seen.extend(service.candidates()) if action == "CreateEndpoint" else None
    service.created(instance_type=ML)
    assert seen == []
    assert len(service.candidates()) == 1


# what goes wrong later


def test_what_aws_is_too_busy_for_is_made_later(service: Service, aws: Aws) -> None:
    aws.refusals["CreateEndpoint"] = Refusal(**vars(THROTTLED) | {"times": 2})
    name = service.created(instance_type=ML)["endpoint_name"]
    assert len(service.candidates()) == 1
    synchronise(service)
    assert service.get(name)["endpoint_status"] == "InService"


def test_a_refusal_in_the_background_fails_the_endpoint_and_removes_it(service: Service, aws: Aws) -> None:
    aws.refusals["CreateEndpoint"] = Refusal(**vars(THROTTLED) | {"times": 2})
    name = service.created(instance_type=ML)["endpoint_name"]
    aws.quotas[ML] = 0
    synchronise(service)
    endpoint = service.get(name)
    assert endpoint["endpoint_status"] == "Failed"
    assert "ResourceLimitExceeded" in endpoint["error"]
    synchronise(service)
    assert aws.names() == NOTHING


def test_sagemakers_own_reason_is_shown_and_the_failed_endpoint_costs_nothing(
    service: Service, aws: Aws
) -> None:
    name = settled(service)
    aws.set_state("Failed", "The primary container did not pass the ping health check.")
    synchronise(service)
    endpoint = service.get(name)
    assert (endpoint["endpoint_status"], endpoint["error"]) == (
        "Failed",
        "The primary container did not pass the ping health check.",
    )
    synchronise(service)
    assert aws.names() == NOTHING


def test_an_endpoint_that_somebody_deletes_at_aws_has_failed(service: Service, aws: Aws) -> None:
    name = settled(service)
    [at_aws] = aws.names()["endpoints"]
    aws.client("sagemaker").delete_endpoint(EndpointName=at_aws)
    synchronise(service)
    assert service.get(name)["error"] == f"the SageMaker endpoint {at_aws} is gone: it was deleted at AWS"


def test_an_endpoint_in_service_stays_so_while_aws_does_not_answer(service: Service, aws: Aws) -> None:
    name = settled(service)
    for refusal in (THROTTLED, DENIED, Refusal("InternalFailure", "", 500)):
        aws.refusals["DescribeEndpoint"] = Refusal(**vars(refusal) | {"times": 2})
        synchronise(service)
        assert service.get(name)["endpoint_status"] == "InService"


def test_a_round_that_aws_breaks_off_is_gone_on_with_by_the_next(service: Service, aws: Aws) -> None:
    names = [settled(service, assign_to_roles=[role]) for role in ("artists", "painters", "singers")]
    first = service.candidates(see_all=True, name=names[0])[0]["sagemaker_endpoint_name"]
    aws.scale(3)
    aws.refusals["DescribeEndpoint"] = Refusal("InternalFailure", "", 500, times=1000, about=first)
    for _ in range(2):
        synchronise(service)
    assert [service.get(name)["current_instance_count"] for name in names] == ["1", "3", "3"]


def test_one_round_at_a_time_and_the_workers_endpoints_do_not_wait_for_it(service: Service, aws: Aws) -> None:
    settled(service)
    rounds = service.wiring.endpoints.take_lease(60, "synchronise")
    assert rounds is not None
    aws.calls.clear()
    synchronise(service)
    assert not aws.calls
    service.tick()
    service.wiring.endpoints.drop_lease(rounds, "synchronise")
    synchronise(service)
    assert aws.calls


def test_an_endpoint_that_takes_too_long_fails_with_what_sagemaker_says(service: Service, aws: Aws) -> None:
    aws.takes_time = True
    name = service.created(instance_type=ML)["endpoint_name"]
    service.wiring.database["endpoints"].update_one(
        {"name": name}, {"$set": {"created_at": now().replace(year=2001)}}
    )
    synchronise(service)
    assert service.get(name)["error"] == (
        "no instance became ready within 3600 s: SageMaker says that the endpoint is Creating"
    )


# deletion


def test_a_deletion_waits_for_an_endpoint_that_is_being_made(service: Service, aws: Aws) -> None:
    aws.takes_time = True
    name = service.created(instance_type=ML)["endpoint_name"]
    busy = Refusal("ValidationException", 'Cannot update in-progress endpoint "arn:aws:…".')
    aws.refusals["DeleteEndpoint"] = busy
    service.delete(name)
    synchronise(service)
    assert service.get(name)["endpoint_status"] == "Deleting"
    assert aws.names()["configurations"], "it is needed until the endpoint is gone"
    aws.pass_time()
    for _ in range(2):
        synchronise(service)
        aws.pass_time()
    synchronise(service)
    assert (service.listed(), aws.names()) == ([], NOTHING)


def test_a_deletion_says_why_it_does_not_go_on(service: Service, aws: Aws) -> None:
    name = settled(service)
    aws.refusals["DeleteEndpoint"] = Refusal("AccessDeniedException", "not authorized")
    service.delete(name)
    synchronise(service)
    assert "not authorized" in service.get(name)["error"]
    synchronise(service)
    assert (service.listed(), aws.names()) == ([], NOTHING)


def test_a_deletion_does_not_wait_for_jobs_for_ever(
    start_service: StartService, aws: Aws, others: Others
) -> None:
    service = start_service(**on_sagemaker(aws) | {"SAGEMAKER_DRAIN_SECONDS": "0.01"})
    name = settled(service)
    others.backlog[name] = {"waiting": 0, "running": 1}
    service.delete(name)
    synchronise(service)
    assert aws.names() == NOTHING


def test_an_endpoint_that_is_deleted_while_it_is_created_leaves_nothing(service: Service, aws: Aws) -> None:
    def deletion(action: str) -> None:
        if action == "CreateEndpointConfig":
            aws.before = lambda _action: None
            [endpoint] = service.listed()
            service.delete(endpoint["endpoint_name"])

    aws.before = deletion
    service.created(instance_type=ML)
    assert aws.calls["CreateEndpoint"] == 0, "the state has changed: what was begun is not gone on with"
    synchronise(service)
    assert (service.listed(), aws.names()) == ([], NOTHING)


# several copies, and deaths


class Death(BaseException):
    """The process ends here: nothing that follows is done."""


@pytest.fixture()
def dying(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes the process die before its n-th change at AWS; returns how to revive it."""

    def die_at(step: int) -> None:
        steps = itertools.count(1)
        renew = Deployments.renew

        def renew_or_die(self: Deployments, endpoint: Any) -> None:
            if next(steps) == step:
                raise Death
            renew(self, endpoint)

        monkeypatch.setattr(Deployments, "renew", renew_or_die)
        monkeypatch.setattr(Deployments, "release", lambda self, endpoint: None)

    return die_at


def revive(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process, after the dead one's claim has run out."""
    monkeypatch.undo()
    service.wiring.database["endpoints"].update_many(
        {"sagemaker.claim": {"$ne": None}}, {"$set": {"sagemaker.claimed_until": now().replace(year=2001)}}
    )


@pytest.mark.parametrize("step", range(1, 9))
def test_a_death_before_any_step_of_a_creation_heals(
    service: Service, aws: Aws, dying: Any, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    dying(step)
    died = False
    try:
        service.create(instance_type=ML, **SCALED)
    except Death:
        died = True
    assert died == (step <= 7), "three parts, then four of scaling"
    revive(service, monkeypatch)
    synchronise(service)
    [endpoint] = service.listed()
    assert (endpoint["endpoint_status"], endpoint["current_instance_count"]) == ("InService", "1")
    assert {kind: len(found) for kind, found in aws.names().items()} == dict.fromkeys(KINDS, 1) | {
        "policies": 2
    }
    assert len(service.candidates()) == 1


@pytest.mark.parametrize("step", range(1, 9))
def test_a_death_before_any_step_of_a_deletion_heals(
    service: Service, aws: Aws, dying: Any, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    name = settled(service, **SCALED)
    service.delete(name)
    dying(step)
    died = False
    try:
        synchronise(service)
    except Death:
        died = True
    assert died == (step <= 7), "alarm, two policies, target, endpoint, configuration, model"
    revive(service, monkeypatch)
    synchronise(service)
    assert (service.listed(), aws.names()) == ([], NOTHING)


def test_a_claim_is_for_one_copy_until_it_runs_out(service: Service) -> None:
    settled(service)
    deployments = Deployments(service.wiring.database)
    [endpoint_id] = deployments.to_look_after()
    claimed = deployments.claim(endpoint_id)
    assert claimed is not None
    assert deployments.claim(endpoint_id) is None
    service.wiring.database["endpoints"].update_one(
        {"_id": endpoint_id}, {"$set": {"sagemaker.claimed_until": now().replace(year=2001)}}
    )
    assert deployments.claim(endpoint_id) is not None
    with pytest.raises(Superseded):
        deployments.renew(claimed)


def test_one_copy_at_a_time_works_on_an_endpoint(service: Service, aws: Aws) -> None:
    aws.refusals["CreateModel"] = Refusal(**vars(THROTTLED) | {"times": 2})
    service.created(instance_type=ML)
    aws.calls.clear()
    copies = [threading.Thread(target=service.wiring.backends.synchronise) for _ in range(6)]
    for copy in copies:
        copy.start()
    for copy in copies:
        copy.join()
    assert [aws.calls[f"Create{part}"] for part in ("Model", "EndpointConfig", "Endpoint")] == [1, 1, 1]
