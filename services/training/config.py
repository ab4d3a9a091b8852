"""The settings of the training service."""

from collections.abc import Mapping
from dataclasses import dataclass

from services.common.settings import (
    InternalSettings,
    MongoSettings,
    S3Settings,
    read_settings,
    secret,
    setting,
)


@dataclass(frozen=True)
class Config:
    """Everything that the training service and its Celery worker read from the environment."""

    mongo: MongoSettings
    s3: S3Settings
    internal: InternalSettings
    worker_secret: str = secret("WORKER_SECRET", "signs the GPU workers' calls (32 characters or more)")
    redis_url: str = setting("REDIS_URL", "Celery broker")
    checkpoints_url: str = setting("CHECKPOINTS_URL", "internal base address of the checkpoints service")
    datasets_url: str = setting("DATASETS_URL", "internal base address of the datasets service")
    lease_seconds: int = setting(
        "LEASE_SECONDS", "a worker that is silent for so long loses its work to the next one", 30, int
    )
    max_attempts: int = setting("MAX_ATTEMPTS", "work fails after so many failed attempts", 3, int)
    log_level: str = setting("LOG_LEVEL", "least severe level that is logged", default="INFO")

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> "Config":
        """Read the settings. Raises SettingsError that names every missing one."""
        return read_settings(cls, environ)
