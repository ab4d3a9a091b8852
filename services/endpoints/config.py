"""Settings of the endpoints service."""

from dataclasses import dataclass

from services.common.backends import BackendName, SageMakerContainers, parse_backends
from services.common.settings import (
    InternalSettings,
    MongoSettings,
    SettingsError,
    read_settings,
    secret,
    setting,
)


def _above_zero(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise ValueError("it must be a number above zero")
    return number


def _ceilings(text: str) -> tuple[tuple[str, int], ...]:
    """Parse `local.cpu=4,ml.g5.2xlarge=2`."""
    ceilings: dict[str, int] = {}
    for part in text.split(","):
        instance_type, separator, number = part.strip().partition("=")
        if not instance_type or not separator or not number.strip().isdecimal():
            raise ValueError("it must look like local.cpu=4,ml.g5.2xlarge=2")
        ceilings[instance_type] = int(number)
    return tuple(ceilings.items())


@dataclass(frozen=True)
class SageMakerSettings(SageMakerContainers):
    """How endpoints are made at Amazon SageMaker."""

    ceilings: tuple[tuple[str, int], ...] = setting(
        "SAGEMAKER_CAPACITY",
        "instances that the endpoints of an instance type may have together, as TYPE=N,TYPE=N "
        "(a type that is not named: as many as AWS's quota lets)",
        default=(),
        parse=_ceilings,
    )
    creation_seconds: float = setting(
        "SAGEMAKER_CREATION_SECONDS",
        "an endpoint that is not in service after so long is Failed",
        default=3600.0,
        parse=_above_zero,
    )
    startup_seconds: int = setting(
        "SAGEMAKER_STARTUP_SECONDS",
        "how long a container may take until it answers, 60 to 3600",
        default=900,
        parse=int,
    )
    drain_seconds: float = setting(
        "SAGEMAKER_DRAIN_SECONDS",
        "how long a deleted endpoint waits for the jobs that run there",
        default=600.0,
        parse=_above_zero,
    )
    events_queue_url: str = setting(
        "SAGEMAKER_EVENTS_QUEUE_URL",
        "SQS queue to which EventBridge or SNS sends what changes at SageMaker (empty: it is polled)",
        default="",
    )
    events_poll_seconds: float = setting(
        "SAGEMAKER_EVENTS_POLL_SECONDS",
        "with a queue, an endpoint of which no event tells is looked at after so long",
        default=60.0,
        parse=_above_zero,
    )


@dataclass(frozen=True)
class Config:
    """Everything that the endpoints service is told from outside."""

    mongo: MongoSettings
    internal: InternalSettings
    sagemaker: SageMakerSettings
    worker_secret: str = secret("WORKER_SECRET", "signs the GPU workers' calls (32 characters or more)")
    redis_url: str = setting("REDIS_URL", "Celery broker and the counters of rate limits")
    inference_url: str = setting("INFERENCE_URL", "internal base address of the inference service")
    ceilings: tuple[tuple[str, int], ...] = setting(
        "ENDPOINT_CAPACITY",
        "instances that each instance type may have, as TYPE=N,TYPE=N "
        "(a type that is not named: the slots of its registered workers)",
        default=(),
        parse=_ceilings,
    )
    worker_lost_seconds: float = setting(
        "WORKER_LOST_SECONDS",
        "a worker that is silent for so long loses its endpoints to others",
        default=10.0,
        parse=_above_zero,
    )
    creation_seconds: float = setting(
        "ENDPOINT_CREATION_SECONDS",
        "an endpoint that has no instance after so long is Failed",
        default=900.0,
        parse=_above_zero,
    )
    backlog_per_instance: float = setting(
        "AUTOSCALING_BACKLOG_PER_INSTANCE",
        "autoscaling adds instances until each has at most so many jobs",
        default=5.0,
        parse=_above_zero,
    )
    cooldown_seconds: float = setting(
        "AUTOSCALING_COOLDOWN_SECONDS",
        "autoscaling takes an instance away after so long with little to do",
        default=120.0,
        parse=_above_zero,
    )
    backends: tuple[str, ...] = setting(
        "BACKENDS",
        "what endpoints may run on, as local,sagemaker: the first is for those that name none",
        default=(BackendName.LOCAL,),
        parse=parse_backends,
    )
    bucket: str = setting(
        "S3_BUCKET", "the platform's bucket: SageMaker's answers go there", default="sdfleet"
    )
    log_level: str = setting("LOG_LEVEL", "least level of log lines", default="INFO")

    @classmethod
    def from_env(cls) -> "Config":
        """Read the environment."""
        return read_settings(cls)

    def __post_init__(self) -> None:
        """Raise SettingsError when a backend lacks what it needs."""
        if BackendName.SAGEMAKER in self.backends and not self.sagemaker.execution_role_arn:
            raise SettingsError("set SAGEMAKER_EXECUTION_ROLE_ARN: BACKENDS names sagemaker (docs/aws.md)")
