"""What EventBridge and SNS tell of endpoints at SageMaker, by way of an SQS queue."""

import json
from typing import Any

import pytest

from services.endpoints.backends.sagemaker.events import endpoint_named_in
from tests.endpoints.aws import Aws, Refusal
from tests.endpoints.conftest import Service, StartService, on_sagemaker
from tests.endpoints.test_sagemaker import ML, SCALED, settled, synchronise

KIND = "SageMaker Endpoint State Change"


@pytest.fixture()
def queue(aws: Aws) -> tuple[str, str]:
    return aws.queue()


@pytest.fixture()
def service(start_service: StartService, aws: Aws, queue: tuple[str, str]) -> Service:
    return start_service(**on_sagemaker(aws), SAGEMAKER_EVENTS_QUEUE_URL=queue[0])


def event(name: str) -> dict[str, Any]:
    detail = {"EndpointName": name, "EndpointStatus": "Updating"}
    return {"source": "aws.sagemaker", "detail-type": KIND, "detail": detail}


def by_eventbridge(aws: Aws, arn: str, name: str) -> None:
    """A rule such as docs/aws.md says, and an event that it matches."""
    events = aws.client("events")
    pattern = {"source": ["aws.sagemaker"], "detail-type": [KIND]}
    events.put_rule(Name="sdfleet", EventPattern=json.dumps(pattern))
    events.put_targets(Rule="sdfleet", Targets=[{"Id": "sdfleet", "Arn": arn}])
    sent = event(name)
    entry = {"Source": sent["source"], "DetailType": KIND, "Detail": json.dumps(sent["detail"])}
    assert events.put_events(Entries=[entry])["FailedEntryCount"] == 0


def by_sns(aws: Aws, arn: str, name: str) -> None:
    topics = aws.client("sns")
    topic = topics.create_topic(Name="sdfleet")["TopicArn"]
    topics.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
    topics.publish(TopicArn=topic, Message=json.dumps(event(name)))


@pytest.mark.parametrize("send", [by_eventbridge, by_sns])
def test_an_endpoint_at_rest_is_looked_at_when_an_event_tells_of_it(
    service: Service, aws: Aws, queue: tuple[str, str], send: Any
) -> None:
    name = settled(service, **SCALED)
    [at_aws] = aws.names()["endpoints"]
    synchronise(service)
    aws.scale(3)
    aws.calls.clear()
    synchronise(service)
    assert aws.calls["DescribeEndpoint"] == 0, "nobody told of a change"
    send(aws, queue[1], at_aws)
    synchronise(service)
    assert service.get(name)["current_instance_count"] == "3"
    aws.calls.clear()
    synchronise(service)
    assert (aws.calls["DescribeEndpoint"], aws.calls["DeleteMessage"]) == (0, 0), "it is told once"


def test_what_is_not_at_rest_is_looked_at_in_every_round(service: Service, aws: Aws) -> None:
    aws.takes_time = True
    name = str(service.created(instance_type=ML)["endpoint_name"])
    synchronise(service)
    assert service.get(name)["endpoint_status"] == "Creating"
    aws.pass_time()
    synchronise(service)
    assert service.get(name)["endpoint_status"] == "InService"
    service.delete(name)
    for _ in range(3):
        service.tick()
        synchronise(service)
        aws.pass_time()
    assert not any(aws.names().values())


def test_an_event_that_is_lost_is_made_good_after_a_while(
    start_service: StartService, aws: Aws, queue: tuple[str, str]
) -> None:
    changes = {"SAGEMAKER_EVENTS_QUEUE_URL": queue[0], "SAGEMAKER_EVENTS_POLL_SECONDS": "0.001"}
    service = start_service(**on_sagemaker(aws), **changes)
    name = settled(service)
    aws.scale(2)
    synchronise(service)
    assert service.get(name)["current_instance_count"] == "2"


def test_while_the_queue_cannot_be_read_every_endpoint_is_looked_at(service: Service, aws: Aws) -> None:
    name = settled(service)
    aws.scale(2)
    aws.refusals["ReceiveMessage"] = Refusal("AccessDeniedException", "not authorized", times=1)
    synchronise(service)
    assert service.get(name)["current_instance_count"] == "2"


def test_an_event_that_comes_while_aws_does_not_answer_is_not_lost(
    service: Service, aws: Aws, queue: tuple[str, str]
) -> None:
    name = settled(service)
    [at_aws] = aws.names()["endpoints"]
    aws.scale(2)
    by_sns(aws, queue[1], at_aws)
    aws.refusals["DescribeEndpoint"] = Refusal("InternalFailure", "", 500, times=2)
    synchronise(service)
    synchronise(service)
    assert service.get(name)["current_instance_count"] == "2"


def test_other_messages_are_passed_over_and_removed(
    service: Service, aws: Aws, queue: tuple[str, str]
) -> None:
    for body in ("nonsense", "[]", "{}", '{"detail": {"EndpointName": 1}}', json.dumps(event("other"))):
        aws.client("sqs").send_message(QueueUrl=queue[0], MessageBody=body)
    synchronise(service)
    found = aws.client("sqs").get_queue_attributes(QueueUrl=queue[0], AttributeNames=["All"])["Attributes"]
    waiting = int(found["ApproximateNumberOfMessages"]), int(found["ApproximateNumberOfMessagesNotVisible"])
    assert waiting == (0, 0)


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (json.dumps(event("esd-a")), "esd-a"),
        (json.dumps({"Type": "Notification", "Message": json.dumps(event("esd-a"))}), "esd-a"),
        (json.dumps({"Type": "Notification", "Message": "text"}), None),
        ('{"detail": null}', None),
        ("1", None),
    ],
)
def test_the_endpoint_is_found_in_both_forms(body: str, name: str | None) -> None:
    assert endpoint_named_in(body) == name
