"""Settings of the inference service."""

from dataclasses import dataclass

from services.common.guard import parse_allowed
from services.common.settings import (
    InternalSettings,
    MongoSettings,
    S3Settings,
    read_settings,
    secret,
    setting,
)
from services.inference.lifetimes import days
from services.inference.limits import NO_LIMITS, LimitTable
from services.inference.sagemaker.settings import SageMakerSettings


@dataclass(frozen=True)
class Config:
    """Everything that the inference service is told from outside."""

    mongo: MongoSettings
    s3: S3Settings
    internal: InternalSettings
    sagemaker: SageMakerSettings
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
    event_streams: int = setting(
        "EVENT_STREAMS", "streams of events that one process keeps open", default=500, parse=int
    )
    event_streams_per_user: int = setting(
        "EVENT_STREAMS_PER_USER", "of these, for one user", default=50, parse=int
    )
    event_stream_seconds: float = setting(
        "EVENT_STREAM_SECONDS",
        "after so long a stream ends, and its client comes back with credentials",
        default=900.0,
        parse=float,
    )
    results_days: float = setting(
        "RESULTS_DAYS",
        "jobs that are over are deleted with their pictures after so many days (0: never)",
        default=0.0,
        parse=days,
    )
    unstarted_days: float = setting(
        "UNSTARTED_DAYS",
        "jobs that nobody starts are deleted after so many days (0: never)",
        default=7.0,
        parse=days,
    )
    limits: LimitTable = setting(  # noqa: RUF009 - a field, as the others
        "INFERENCE_LIMITS",
        "JSON: what users may ask for, by role and user (docs/scheduling.md)",
        default=NO_LIMITS,
        parse=LimitTable.parse,
    )
    webhooks_allow: tuple[str, ...] = setting(
        "WEBHOOKS_ALLOW",
        "private hosts (host or host:port, by commas) that webhooks may be sent to",
        default=(),
        parse=parse_allowed,
    )
    webhook_attempts: int = setting(
        "WEBHOOK_ATTEMPTS", "an event that no webhook took so often is given up", default=10, parse=int
    )
    webhook_retry_seconds: float = setting(
        "WEBHOOK_RETRY_SECONDS",
        "pause after the first attempt; four times as long after each further one, an hour at most",
        default=5.0,
        parse=float,
    )
    log_level: str = setting("LOG_LEVEL", "least level of log lines", default="INFO")

    @classmethod
    def from_env(cls) -> "Config":
        """Read the environment."""
        return read_settings(cls)
