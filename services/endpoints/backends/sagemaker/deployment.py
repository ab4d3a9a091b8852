"""An endpoint's parts at AWS: making them, following them, removing them; every step may be repeated."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

from services.common.times import now
from services.endpoints.backends.sagemaker import names, scaling
from services.endpoints.backends.sagemaker.aws import Aws, Described
from services.endpoints.backends.sagemaker.repository import Deployments
from services.endpoints.config import Config
from services.endpoints.repository import Endpoint
from services.endpoints.states import EndpointType, Status

Done = TypeVar("Done")
TAG = "sdfleet:endpoint"


class Deployment:
    """One endpoint at AWS, while this copy holds the claim to it.

    A process may die between any two calls: what it made has the name that the next copy looks for.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        deployments: Deployments,
        aws: Aws,
        config: Config,
    ) -> None:
        self._endpoint = endpoint
        self._deployments = deployments
        self._aws = aws
        self._settings = config.sagemaker
        self._config = config
        self._name = names.sagemaker_name(endpoint)
        self._resource = scaling.resource_id(self._name)

    # being there

    def provide(self) -> None:
        """Make what is missing and keep what is seen.

        Raises RefusedByAws, DeniedByAws, NotNow, Superseded.
        """
        seen = self._aws.describe(self._name)
        if seen is None and "status" in self._endpoint["sagemaker"]:
            self._deployments.note(
                self._endpoint,
                current=0,
                failure=f"the SageMaker endpoint {self._name} is gone: it was deleted at AWS",
            )
            return
        if seen is None:
            self._create()
            seen = self._aws.describe(self._name)
        if seen is not None:
            self._note(seen)
            if seen.status == Status.IN_SERVICE and self._endpoint["autoscaling"]:
                self._scale()

    def _create(self) -> None:
        tags = [{"Key": TAG, "Value": self._endpoint["_id"]}]
        create, name = self._aws.create, self._name
        self._do(create, "model", ModelName=name, Tags=tags, **self._model())
        self._do(create, "endpoint_config", EndpointConfigName=name, Tags=tags, **self._configuration())
        self._do(create, "endpoint", EndpointName=name, EndpointConfigName=name, Tags=tags)

    def _do(self, call: Callable[..., Done], *arguments: Any, **named: Any) -> Done:
        """Change something at AWS, as long as the claim is ours and the endpoint's state is the same."""
        self._deployments.renew(self._endpoint)
        return call(*arguments, **named)

    def _model(self) -> dict[str, Any]:
        return {
            "ExecutionRoleArn": self._settings.execution_role_arn,
            "PrimaryContainer": {
                "Image": self._endpoint["custom_docker_image_uri"] or self._settings.image_uri,
                "Environment": {"LOG_LEVEL": self._config.log_level}
                | dict(self._settings.container_environment),
            },
            **self._settings.network(),
        }

    def _configuration(self) -> dict[str, Any]:
        configuration: dict[str, Any] = {
            "ProductionVariants": [
                {
                    "VariantName": names.VARIANT,
                    "ModelName": self._name,
                    "InstanceType": self._endpoint["instance_type"],
                    "InitialInstanceCount": self._endpoint["wanted"],
                    "InitialVariantWeight": 1.0,
                    "ContainerStartupHealthCheckTimeoutInSeconds": self._settings.startup_seconds,
                }
            ]
        }
        if self._endpoint["endpoint_type"] == EndpointType.ASYNC:
            configuration["AsyncInferenceConfig"] = {
                "OutputConfig": {
                    "S3OutputPath": names.output_path(self._config.bucket),
                    "S3FailurePath": names.failure_path(self._config.bucket),
                },
                # An instance computes one job at a time; the others wait in SageMaker's line.
                "ClientConfig": {"MaxConcurrentInvocationsPerInstance": 1},
            }
        return configuration

    def _note(self, seen: Described) -> None:
        self._deployments.note(
            self._endpoint,
            status=seen.status,
            current=seen.current,
            desired=seen.desired,
            failure=seen.failure,
        )

    def _scale(self) -> None:
        """Set up auto scaling, once; SageMaker takes it from the moment the endpoint is in service."""
        if self._endpoint["sagemaker"].get("scaled"):
            return
        least, most = self._endpoint["min_instances"], self._endpoint["max_instances"]
        backlog, cooldown = self._config.backlog_per_instance, self._config.cooldown_seconds
        follow = scaling.backlog_policy(self._name, backlog, round(cooldown))
        self._do(self._aws.register_target, self._resource, least, most)
        self._do(self._aws.put_policy, self._resource, follow)
        arn = self._do(self._aws.put_policy, self._resource, scaling.wake_policy(self._name))
        self._do(self._aws.put_alarm, scaling.wake_alarm(self._name, arn))
        self._deployments.note(self._endpoint, scaled=True)

    # going

    def remove(self) -> None:
        """Take away whatever there is of it, as far as it can be done now. Raises as `provide` does."""
        if self._is_busy():
            return
        seen = self._aws.describe(self._name)
        if seen is None or seen.status != Status.DELETING:
            self._remove_scaling()
        if seen is not None and seen.status != Status.DELETING:
            self._do(self._aws.delete_endpoint, self._name)
            seen = self._aws.describe(self._name)
        if seen is not None:
            self._note(seen)  # it takes minutes, and its configuration is needed until then
            return
        self._do(self._aws.delete_configuration, self._name)
        self._do(self._aws.delete_model, self._name)
        self._deployments.note(self._endpoint, current=0, gone=True)

    def _remove_scaling(self) -> None:
        self._do(self._aws.delete_alarm, scaling.alarm_name(self._name))
        for policy in scaling.policy_names(self._name):
            self._do(self._aws.delete_policy, self._resource, policy)
        self._do(self._aws.deregister_target, self._resource)

    def _is_busy(self) -> bool:
        """Whether jobs that run there may still come to their end."""
        if self._endpoint["status"] != Status.DELETING or not self._endpoint["jobs_left"]:
            return False
        patience = timedelta(seconds=self._settings.drain_seconds)
        return bool(now() - self._endpoint["deleting_at"] < patience)
