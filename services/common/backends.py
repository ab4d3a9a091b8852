"""What endpoints and trainings may run on, and how that is Amazon SageMaker (docs/aws.md)."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from services.common.settings import hidden, setting


class BackendName(StrEnum):
    """The GPU workers of this deployment, or AWS."""

    LOCAL = "local"
    SAGEMAKER = "sagemaker"


def parse_backends(text: str) -> tuple[str, ...]:
    """Parse `local,sagemaker`."""
    names = tuple(dict.fromkeys(_parse_list(text)))
    if unknown := set(names) - set(BackendName):
        raise ValueError(f"there is no backend {', '.join(sorted(unknown))}, only {', '.join(BackendName)}")
    return names


def _parse_list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(","))


def _parse_variables(text: str) -> tuple[tuple[str, str], ...]:
    """Parse `NAME=VALUE,NAME=VALUE`."""
    pairs = [part.partition("=") for part in _parse_list(text)]
    if any(not name or not separator for name, separator, _ in pairs):
        raise ValueError("it must look like NAME=VALUE,NAME=VALUE")
    return tuple((name, value) for name, _, value in pairs)


@dataclass(frozen=True)
class SageMakerAccess:
    """Where SageMaker is called, and as whom."""

    region: str = setting(
        "SAGEMAKER_REGION", "where endpoints and training jobs run, and their bucket", default="us-east-1"
    )
    access_key: str = setting(
        "AWS_ACCESS_KEY_ID", "AWS access key (empty: the AWS default chain)", default=""
    )
    secret_key: str = hidden("AWS_SECRET_ACCESS_KEY", "AWS secret key")


@dataclass(frozen=True)
class SageMakerContainers(SageMakerAccess):
    """How SageMaker is asked to run the worker image: as whom, in which network, with which settings."""

    execution_role_arn: str = setting(
        "SAGEMAKER_EXECUTION_ROLE_ARN",
        "the IAM role that SageMaker runs endpoints and training jobs as",
        default="",
    )
    image_uri: str = setting(
        "SAGEMAKER_IMAGE_URI",
        "the worker image in Amazon ECR (trainings need it; without it every endpoint names its own)",
        default="",
    )
    endpoint_url: str = setting("SAGEMAKER_ENDPOINT_URL", "another address than AWS's, for tests", default="")
    container_environment: tuple[tuple[str, str], ...] = setting(
        "SAGEMAKER_CONTAINER_ENVIRONMENT",
        "more settings of the worker image, as NAME=VALUE,NAME=VALUE",
        default=(),
        parse=_parse_variables,
    )
    subnets: tuple[str, ...] = setting(
        "SAGEMAKER_SUBNETS",
        "run endpoints and training jobs in these subnets of a VPC",
        default=(),
        parse=_parse_list,
    )
    security_groups: tuple[str, ...] = setting(
        "SAGEMAKER_SECURITY_GROUPS", "the security groups for it", default=(), parse=_parse_list
    )

    def network(self) -> dict[str, Any]:
        """What CreateModel and CreateTrainingJob are told of the VPC, if anything."""
        if not self.subnets:
            return {}
        return {"VpcConfig": {"Subnets": list(self.subnets), "SecurityGroupIds": list(self.security_groups)}}
