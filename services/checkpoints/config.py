"""The settings of the checkpoints service."""

from collections.abc import Mapping
from dataclasses import dataclass

from services.common.settings import InternalSettings, MongoSettings, S3Settings, read_settings, setting


@dataclass(frozen=True)
class Config:
    """Everything that the checkpoints service and its Celery worker read from the environment."""

    mongo: MongoSettings
    s3: S3Settings
    internal: InternalSettings
    redis_url: str = setting("REDIS_URL", "Celery broker")
    log_level: str = setting("LOG_LEVEL", "least severe level that is logged", default="INFO")
    stalled_seconds: int = setting(
        "CHECKPOINTS_STALLED_SECONDS",
        "an upload to which no part came for so long is given up and its parts are freed",
        default=86400,
        parse=int,
    )
    keep_moved_seconds: int = setting(
        "CHECKPOINTS_KEEP_MOVED_SECONDS",
        "so long the old object of a renamed file stays for jobs that were promised it",
        default=86400,
        parse=int,
    )
    lease_seconds: float = setting(
        "CHECKPOINTS_LEASE_SECONDS",
        "after the death of a process, somebody else may go on with its work after so many seconds",
        default=15.0,
        parse=float,
    )

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> "Config":
        """Read the settings. Raises SettingsError that names every missing one."""
        return read_settings(cls, environ)
