"""How jobs are given to Amazon SageMaker."""

from dataclasses import dataclass

from services.common.backends import SageMakerAccess
from services.common.settings import setting

# What SageMaker gives a Real-time invocation:
# https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_runtime_InvokeEndpoint.html
REALTIME_SECONDS = 60


def _seconds(text: str) -> int:
    seconds = int(text)
    if not 60 <= seconds <= 3600:
        raise ValueError("it must be a whole number of seconds from 60 to 3600")
    return seconds


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError("it must be a whole number of at least 1")
    return number


@dataclass(frozen=True)
class SageMakerSettings(SageMakerAccess):
    """Where and how many jobs are submitted."""

    runtime_url: str = setting("SAGEMAKER_RUNTIME_URL", "another address than AWS's, for tests", default="")
    jobs_per_instance: int = setting(
        "SAGEMAKER_JOBS_PER_INSTANCE",
        "so many jobs are at SageMaker for each instance of an Async endpoint, the others wait here in their "
        "fair order; more than AUTOSCALING_BACKLOG_PER_INSTANCE, or SageMaker adds no instance",
        default=6,
        parse=_at_least_one,
    )
    attempt_seconds: int = setting(
        "SAGEMAKER_ATTEMPT_SECONDS",
        "an attempt on an Async endpoint that has no result after so long, its time in SageMaker's own line "
        "included, is over (60 to 3600)",
        default=1800,
        parse=_seconds,
    )
