"""Settings of the inference service."""

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
    """Everything that the inference service is told from outside."""

    mongo: MongoSettings
    s3: S3Settings
    internal: InternalSettings
    worker_secret: str = secret("WORKER_SECRET", "signs the GPU workers' calls (32 characters or more)")
    redis_url: str = setting("REDIS_URL", "Redis: Celery broker and live events")
    checkpoints_url: str = setting("CHECKPOINTS_URL", "internal base address of the checkpoints service")
    endpoints_url: str = setting("ENDPOINTS_URL", "internal base address of the endpoints service")
    lease_seconds: int = setting(
        "LEASE_SECONDS",
        "a worker that is silent for so long loses its job to the next one",
        default=30,
        parse=int,
    )
    max_attempts: int = setting(
        "MAX_ATTEMPTS", "a job fails after so many failed attempts", default=3, parse=int
    )
    realtime_wait_seconds: int = setting(
        "REALTIME_WAIT_SECONDS",
        "how long a Real-time start waits; less than the gateway's limit",
        default=55,
        parse=int,
    )
    log_level: str = setting("LOG_LEVEL", "least level of log lines", default="INFO")

    @classmethod
    def from_env(cls) -> "Config":
        """Read the environment."""
        return read_settings(cls)
