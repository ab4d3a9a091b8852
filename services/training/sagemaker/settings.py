"""How training jobs are made at Amazon SageMaker."""

from dataclasses import dataclass, field

from services.common.settings import setting

LONGEST_RUN = 28 * 86400  # what SageMaker lets one job take
LOCAL, SAGEMAKER = BACKENDS = ("local", "sagemaker")


def parse_backends(text: str) -> tuple[str, ...]:
    """Parse `local,sagemaker`."""
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    if unknown := set(names) - set(BACKENDS):
        raise ValueError(f"there is no backend {', '.join(sorted(unknown))}, only {', '.join(BACKENDS)}")
    return names


def _run_seconds(text: str) -> int:
    seconds = int(text)
    if not 600 <= seconds <= LONGEST_RUN:
        raise ValueError(f"it must be a whole number of seconds from 600 to {LONGEST_RUN}")
    return seconds


def _gigabytes(text: str) -> int:
    size = int(text)
    if not 10 <= size <= 16384:
        raise ValueError("it must be a whole number of gigabytes from 10 to 16384")
    return size


def _variables(text: str) -> tuple[tuple[str, str], ...]:
    """Parse `NAME=VALUE,NAME=VALUE`."""
    pairs = [part.strip().partition("=") for part in text.split(",")]
    if any(not name or not separator for name, separator, _ in pairs):
        raise ValueError("it must look like NAME=VALUE,NAME=VALUE")
    return tuple((name, value) for name, _, value in pairs)


def _list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(","))


@dataclass(frozen=True)
class SageMakerSettings:
    """As docs/aws.md lists them; what endpoints need too has the same name there."""

    execution_role_arn: str = setting(
        "SAGEMAKER_EXECUTION_ROLE_ARN", "the IAM role that SageMaker runs training jobs as", default=""
    )
    image_uri: str = setting("SAGEMAKER_IMAGE_URI", "the worker image in Amazon ECR", default="")
    region: str = setting("SAGEMAKER_REGION", "where jobs run, and their bucket", default="us-east-1")
    endpoint_url: str = setting("SAGEMAKER_ENDPOINT_URL", "another address than AWS's, for tests", default="")
    access_key: str = setting(
        "AWS_ACCESS_KEY_ID", "AWS access key (empty: the AWS default chain)", default=""
    )
    secret_key: str = field(
        default="",
        repr=False,
        metadata={"variable": "AWS_SECRET_ACCESS_KEY", "doc": "AWS secret key", "parse": str},
    )
    longest_seconds: int = setting(
        "SAGEMAKER_TRAINING_SECONDS",
        "a training job ends after so long, with what it has learned",
        default=86400,
        parse=_run_seconds,
    )
    volume_gigabytes: int = setting(
        "SAGEMAKER_TRAINING_VOLUME_GB",
        "disk of a training job: checkpoint, pictures, states and results",
        default=100,
        parse=_gigabytes,
    )
    container_environment: tuple[tuple[str, str], ...] = setting(
        "SAGEMAKER_CONTAINER_ENVIRONMENT",
        "more settings of the worker image, as NAME=VALUE,NAME=VALUE",
        default=(),
        parse=_variables,
    )
    subnets: tuple[str, ...] = setting(
        "SAGEMAKER_SUBNETS", "run training jobs in these subnets of a VPC", default=(), parse=_list
    )
    security_groups: tuple[str, ...] = setting(
        "SAGEMAKER_SECURITY_GROUPS", "the security groups for it", default=(), parse=_list
    )
