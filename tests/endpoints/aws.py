"""AWS for tests: moto in server mode, and before it what moto leaves out of SageMaker.

moto creates what exists already, is in service at once, knows no quotas and refuses nothing. `Front` adds
these over the same HTTP, in the words of SageMaker's API reference; tests say what is to happen.
"""

import io
import json
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import boto3
from moto.applicationautoscaling.models import applicationautoscaling_backends
from moto.cloudwatch.models import cloudwatch_backends
from moto.core import DEFAULT_ACCOUNT_ID
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.sagemaker.models import sagemaker_backends
from werkzeug.serving import make_server
from werkzeug.wrappers import Request, Response

REGION = "us-east-1"
ROLE = f"arn:aws:iam::{DEFAULT_ACCOUNT_ID}:role/sdfleet-endpoints"
IMAGE = f"{DEFAULT_ACCOUNT_ID}.dkr.ecr.{REGION}.amazonaws.com/sdfleet-worker:1.0"
KINDS = {
    "CreateModel": ("ModelName", "model", "_models"),
    "CreateEndpointConfig": ("EndpointConfigName", "endpoint configuration", "endpoint_configs"),
    "CreateEndpoint": ("EndpointName", "endpoint", "endpoints"),
}
Application = Callable[[dict[str, Any], Any], Iterable[bytes]]


@dataclass
class Refusal:
    """What AWS is to answer to an action, so many times."""

    code: str
    message: str
    status: int = 400
    times: int = 1
    about: str = ""  # only where the request names this


@dataclass
class Aws:
    """The running server; tests change what it does as they go."""

    url: str = ""
    calls: Counter[str] = field(default_factory=Counter)
    quotas: dict[str, int] = field(default_factory=dict)
    refusals: dict[str, Refusal] = field(default_factory=dict)
    takes_time: bool = False  # endpoints stay Creating and Deleting until a test says otherwise
    before: Callable[[str], None] = lambda _action: None

    def reset(self) -> None:
        """Nothing exists, nothing is refused."""
        for backend in (sagemaker_backends, applicationautoscaling_backends, cloudwatch_backends):
            backend.reset()
        self.calls.clear(), self.quotas.clear(), self.refusals.clear()
        self.takes_time, self.before = False, lambda _action: None

    def client(self, service: str) -> Any:
        """An ordinary boto3 client of it."""
        return boto3.client(
            service,
            region_name=REGION,
            endpoint_url=self.url,
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )

    @property
    def _sagemaker(self) -> Any:
        return sagemaker_backends[DEFAULT_ACCOUNT_ID][REGION]

    def names(self) -> dict[str, list[str]]:
        """Everything that exists, by kind: what is left over shows here."""
        scaling = self.client("application-autoscaling")
        return {
            "models": sorted(self._sagemaker._models),
            "configurations": sorted(self._sagemaker.endpoint_configs),
            "endpoints": sorted(self._sagemaker.endpoints),
            "targets": [
                target["ResourceId"]
                for target in scaling.describe_scalable_targets(ServiceNamespace="sagemaker")[
                    "ScalableTargets"
                ]
            ],
            "policies": [
                policy["PolicyName"]
                for policy in scaling.describe_scaling_policies(ServiceNamespace="sagemaker")[
                    "ScalingPolicies"
                ]
            ],
            "alarms": [
                alarm["AlarmName"] for alarm in self.client("cloudwatch").describe_alarms()["MetricAlarms"]
            ],
        }

    def set_state(self, status: str, failure: str | None = None) -> None:
        """Every endpoint is in this state now."""
        for endpoint in self._sagemaker.endpoints.values():
            endpoint.endpoint_status, endpoint.failure_reason = status, failure

    def pass_time(self) -> None:
        """What was being made or changed is in service, what was being deleted is gone."""
        for name, endpoint in list(self._sagemaker.endpoints.items()):
            if endpoint.endpoint_status == "Deleting":
                del self._sagemaker.endpoints[name]
            elif endpoint.endpoint_status != "Failed":
                endpoint.endpoint_status = "InService"

    def queue(self) -> tuple[str, str]:
        """URL and ARN of a new SQS queue."""
        client = self.client("sqs")
        url = str(client.create_queue(QueueName=f"events-{uuid.uuid4().hex[:8]}")["QueueUrl"])
        found = client.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
        return url, str(found["Attributes"]["QueueArn"])

    def scale(self, count: int) -> None:
        """What Application Auto Scaling does to every endpoint."""
        for name, endpoint in self._sagemaker.endpoints.items():
            weights = [
                {"VariantName": variant["VariantName"], "DesiredInstanceCount": count}
                for variant in endpoint.production_variants
            ]
            self._sagemaker.update_endpoint_weights_and_capacities(name, weights)


class Front:
    """The application before moto."""

    def __init__(self, aws: Aws) -> None:
        self._aws = aws
        self._moto: Application = DomainDispatcherApplication(create_backend_app)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        request = Request(environ)
        action = request.headers.get("X-Amz-Target", "").rpartition(".")[2] or "query"
        body = request.get_data(parse_form_data=False)
        environ["wsgi.input"] = io.BytesIO(body)
        self._aws.calls[action] += 1
        self._aws.before(action)
        refusal = self._refusal(action, body)
        if refusal is not None:
            answer = {"__type": refusal.code, "message": refusal.message}
            return _json(answer, refusal.status)(environ, start_response)
        if action == "DeleteEndpoint" and self._aws.takes_time and self._marked_deleting(body):
            return _json({}, 200)(environ, start_response)
        answer_body = self._moto(environ, start_response)
        self._afterwards(action, body)
        return answer_body

    def _refusal(self, action: str, body: bytes) -> Refusal | None:
        refusal = self._aws.refusals.get(action)
        if refusal is not None and refusal.times > 0 and refusal.about in body.decode():
            refusal.times -= 1
            return refusal
        if action not in KINDS:
            return None
        asked = json.loads(body)
        field_name, kind, store = KINDS[action]
        if asked[field_name] in getattr(self._aws._sagemaker, store):
            return Refusal("ValidationException", f'Cannot create already existing {kind} "arn:aws:…".')
        return self._over_quota(asked) if action == "CreateEndpoint" else None

    def _over_quota(self, asked: dict[str, Any]) -> Refusal | None:
        configuration = self._aws._sagemaker.endpoint_configs.get(asked["EndpointConfigName"])
        if configuration is None:
            return None
        [variant] = configuration.production_variants
        instance_type, count = variant["InstanceType"], variant["InitialInstanceCount"]
        quota = self._aws.quotas.get(instance_type)
        if quota is None or count <= quota:
            return None
        return Refusal(
            "ResourceLimitExceeded",
            f"The account-level service limit '{instance_type} for endpoint usage' is {quota} Instances, "
            f"with current utilization of 0 Instances and a request delta of {count} Instances. "
            "Please use AWS Service Quotas to request an increase for this quota.",
        )

    def _marked_deleting(self, body: bytes) -> bool:
        endpoint = self._aws._sagemaker.endpoints.get(json.loads(body)["EndpointName"])
        if endpoint is not None:
            endpoint.endpoint_status = "Deleting"
        return endpoint is not None

    def _afterwards(self, action: str, body: bytes) -> None:
        if not self._aws.takes_time or action != "CreateEndpoint":
            return
        endpoint = self._aws._sagemaker.endpoints.get(json.loads(body)["EndpointName"])
        if endpoint is not None:
            endpoint.endpoint_status = "Creating"


def _json(answer: dict[str, Any], status: int) -> Response:
    return Response(json.dumps(answer), status, content_type="application/x-amz-json-1.1")


@contextmanager
def running_aws() -> Iterator[Aws]:
    """Run it on a free port of the loopback address."""
    aws = Aws()
    server = make_server("127.0.0.1", 0, Front(aws), threaded=True)
    aws.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield aws
    finally:
        server.shutdown()
        thread.join()
