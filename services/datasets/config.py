"""The settings of the datasets service."""

from collections.abc import Mapping
from dataclasses import dataclass

from services.common.settings import InternalSettings, MongoSettings, S3Settings, read_settings, setting


@dataclass(frozen=True)
class Config:
    """Everything that the datasets service and its Celery worker read from the environment."""

    mongo: MongoSettings
    s3: S3Settings
    internal: InternalSettings
    redis_url: str = setting("REDIS_URL", "Celery broker")
    most_picture_mb: float = setting(
        "DATASETS_PICTURE_MAX_MB", "largest picture file that is read, in MB", default=50.0, parse=float
    )
    most_megapixels: float = setting(
        "DATASETS_PICTURE_MAX_MEGAPIXELS", "largest picture that is decoded", default=50.0, parse=float
    )
    least_side: int = setting(
        "DATASETS_PICTURE_MIN_SIDE", "shortest side of a picture that is trained on", default=32, parse=int
    )
    lease_seconds: float = setting(
        "DATASETS_LEASE_SECONDS",
        "after the death of a process, somebody else goes on with its work after so many seconds",
        default=30.0,
        parse=float,
    )
    log_level: str = setting("LOG_LEVEL", "least severe level that is logged", default="INFO")

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> "Config":
        """Read the settings. Raises SettingsError that names every missing one."""
        return read_settings(cls, environ)
