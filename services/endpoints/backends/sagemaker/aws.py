"""Every call to AWS: each may be made twice, with the same outcome."""

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import boto3
from botocore.config import Config as BotoConfig
from botocore.exceptions import BotoCoreError, ClientError

from services.endpoints.backends.sagemaker.failures import (
    is_absent,
    is_in_progress,
    is_there_already,
    translated,
)
from services.endpoints.config import SageMakerSettings

# One call ends within this, tries included: a claim (repository.py) lives longer.
CALL_SECONDS = 30
CONNECT_SECONDS, READ_SECONDS, TRIES = 3, 10, 2
NAMESPACE = "sagemaker"
DIMENSION = "sagemaker:variant:DesiredInstanceCount"


@dataclass(frozen=True)
class Described:
    """An endpoint as SageMaker describes it."""

    status: str
    current: int
    desired: int
    failure: str | None


class Aws:
    """SageMaker, its auto scaling and its alarms; failures are RefusedByAws, DeniedByAws and NotNow."""

    def __init__(self, settings: SageMakerSettings) -> None:
        self._settings = settings
        self._clients: dict[str, Any] = {}
        self._making = threading.Lock()  # a boto3 session makes its clients one after the other

    def client(self, service: str) -> Any:
        """The boto3 client of an AWS service, made when it is first needed."""
        with self._making:
            if service not in self._clients:
                settings = self._settings
                self._clients[service] = boto3.session.Session().client(
                    service,  # type: ignore[call-overload]
                    region_name=settings.region,
                    endpoint_url=settings.endpoint_url or None,
                    aws_access_key_id=settings.access_key or None,
                    aws_secret_access_key=settings.secret_key or None,
                    config=BotoConfig(
                        connect_timeout=CONNECT_SECONDS,
                        read_timeout=READ_SECONDS,
                        retries={"total_max_attempts": TRIES, "mode": "standard"},
                    ),
                )
            return self._clients[service]

    # the endpoint and what it is made of

    def describe(self, name: str) -> Described | None:
        """The endpoint now; None when there is none."""
        with _failures():
            try:
                endpoint = self.client("sagemaker").describe_endpoint(EndpointName=name)
            except ClientError as error:
                if is_absent(error):
                    return None
                raise
        variant = (endpoint.get("ProductionVariants") or [{}])[0]
        return Described(
            status=endpoint["EndpointStatus"],
            current=variant.get("CurrentInstanceCount") or 0,
            desired=variant.get("DesiredInstanceCount") or 0,
            failure=endpoint.get("FailureReason"),
        )

    def create(self, what: str, **arguments: Any) -> None:
        """Create a `model`, `endpoint_config` or `endpoint`; one of this name that is there is ours."""
        with _failures():
            try:
                getattr(self.client("sagemaker"), f"create_{what}")(**arguments)
            except ClientError as error:
                if not is_there_already(error):
                    raise

    def delete_endpoint(self, name: str) -> None:
        """Ask SageMaker to delete the endpoint; while it is being changed it has to be asked again later."""
        self._delete("sagemaker", "delete_endpoint", EndpointName=name)

    def delete_configuration(self, name: str) -> None:
        """Delete the endpoint's configuration."""
        self._delete("sagemaker", "delete_endpoint_config", EndpointConfigName=name)

    def delete_model(self, name: str) -> None:
        """Delete the model."""
        self._delete("sagemaker", "delete_model", ModelName=name)

    def _delete(self, service: str, call: str, **arguments: Any) -> None:
        with _failures():
            try:
                getattr(self.client(service), call)(**arguments)
            except ClientError as error:
                if not (is_absent(error) or is_in_progress(error)):
                    raise

    # what AWS tells

    def messages(self, queue_url: str) -> list[dict[str, str]]:
        """Up to ten messages that wait in an SQS queue; each comes again until it is deleted."""
        with _failures():
            answer = self.client("sqs").receive_message(QueueUrl=queue_url, MaxNumberOfMessages=10)
        return [
            {"body": each["Body"], "receipt": each["ReceiptHandle"]} for each in answer.get("Messages", ())
        ]

    def delete_message(self, queue_url: str, receipt: str) -> None:
        """The message is dealt with."""
        with _failures():
            self.client("sqs").delete_message(QueueUrl=queue_url, ReceiptHandle=receipt)

    # scaling

    def register_target(self, resource: str, least: int, most: int) -> None:
        """Let the number of instances be changed between these bounds."""
        with _failures():
            self.client("application-autoscaling").register_scalable_target(
                **_target(resource), MinCapacity=least, MaxCapacity=most
            )

    def put_policy(self, resource: str, policy: dict[str, Any]) -> str:
        """Create or replace a scaling policy; its ARN."""
        with _failures():
            made = self.client("application-autoscaling").put_scaling_policy(**_target(resource), **policy)
        return str(made["PolicyARN"])

    def put_alarm(self, alarm: dict[str, Any]) -> None:
        """Create or replace an alarm."""
        with _failures():
            self.client("cloudwatch").put_metric_alarm(**alarm)

    def delete_alarm(self, name: str) -> None:
        """Delete an alarm."""
        self._delete("cloudwatch", "delete_alarms", AlarmNames=[name])

    def delete_policy(self, resource: str, name: str) -> None:
        """Delete a scaling policy, with the alarms that AWS made for it."""
        self._delete("application-autoscaling", "delete_scaling_policy", **_target(resource), PolicyName=name)

    def deregister_target(self, resource: str) -> None:
        """Let the number of instances be changed no more."""
        self._delete("application-autoscaling", "deregister_scalable_target", **_target(resource))


def _target(resource: str) -> dict[str, str]:
    return {"ServiceNamespace": NAMESPACE, "ResourceId": resource, "ScalableDimension": DIMENSION}


@contextlib.contextmanager
def _failures() -> Iterator[None]:
    try:
        yield
    except (ClientError, BotoCoreError) as error:
        raise translated(error) from error
