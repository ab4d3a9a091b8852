"""The settings of the training service."""

from collections.abc import Mapping
from dataclasses import dataclass

from services.common.backends import BackendName, parse_backends
from services.common.settings import (
    InternalSettings,
    MongoSettings,
    S3Settings,
    SettingsError,
    read_settings,
    secret,
    setting,
)
from services.training.sagemaker.settings import SageMakerSettings


@dataclass(frozen=True)
class Config:
    """Everything that the training service and its Celery worker read from the environment."""

    mongo: MongoSettings
    s3: S3Settings
    internal: InternalSettings
    sagemaker: SageMakerSettings
    worker_secret: str = secret("WORKER_SECRET", "signs the GPU workers' calls (32 characters or more)")
    redis_url: str = setting("REDIS_URL", "Celery broker")
    checkpoints_url: str = setting("CHECKPOINTS_URL", "internal base address of the checkpoints service")
    datasets_url: str = setting("DATASETS_URL", "internal base address of the datasets service")
    lease_seconds: int = setting(
        "LEASE_SECONDS", "a worker that is silent for so long loses its work to the next one", 30, int
    )
    max_attempts: int = setting("MAX_ATTEMPTS", "work fails after so many failed attempts", 3, int)
    backends: tuple[str, ...] = setting(
        "BACKENDS",
        "where trainings may run, as local,sagemaker",
        default=(BackendName.LOCAL,),
        parse=parse_backends,
    )
    log_level: str = setting("LOG_LEVEL", "least severe level that is logged", default="INFO")

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> "Config":
        """Read the settings. Raises SettingsError that names every missing one."""
        return read_settings(cls, environ)

    def __post_init__(self) -> None:
        """Raise SettingsError when a backend lacks what it needs."""
        needed = (
            ("SAGEMAKER_EXECUTION_ROLE_ARN", self.sagemaker.execution_role_arn),
            ("SAGEMAKER_IMAGE_URI", self.sagemaker.image_uri),
        )
        missing = [variable for variable, value in needed if not value]
        if BackendName.SAGEMAKER in self.backends and missing:
            raise SettingsError(f"set {', '.join(missing)}: BACKENDS names sagemaker (docs/aws.md)")
