"""How training jobs are made at Amazon SageMaker."""

from dataclasses import dataclass

from services.common.backends import SageMakerContainers
from services.common.settings import setting

LONGEST_RUN = 28 * 86400  # what SageMaker lets one job take


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


@dataclass(frozen=True)
class SageMakerSettings(SageMakerContainers):
    """How long one may take, and how much disk it has."""

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
