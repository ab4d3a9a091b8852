"""The settings of the checkpoints service."""

from collections.abc import Mapping
from dataclasses import dataclass

from services.common.guard import parse_allowed
from services.common.settings import (
    InternalSettings,
    MongoSettings,
    S3Settings,
    hidden,
    read_settings,
    setting,
)

CONVERT, REFUSE = "convert", "refuse"


def parse_pickles(text: str) -> str:
    """What is done with pickles."""
    if text not in {CONVERT, REFUSE}:
        raise ValueError(f"it must be {CONVERT} or {REFUSE}")
    return text


def parse_origins(text: str) -> tuple[str, ...]:
    """Origins as the gateway reads them: separated by commas or spaces."""
    return tuple(text.replace(",", " ").split())


def parse_tokens(text: str) -> tuple[tuple[str, str], ...]:
    """(host, token) of `host=token` pairs, separated by commas."""
    pairs = [entry.strip().partition("=") for entry in text.split(",") if entry.strip()]
    if not all(host and token for host, _, token in pairs):
        raise ValueError("it must be host=token, separated by commas")
    return tuple((host.lower().removeprefix("www."), token) for host, _, token in pairs)


@dataclass(frozen=True)
class Config:
    """Everything that the checkpoints service and its Celery worker read from the environment."""

    mongo: MongoSettings
    s3: S3Settings
    internal: InternalSettings
    inference_url: str = setting("INFERENCE_URL", "internal base address of the inference service")
    training_url: str = setting("TRAINING_URL", "internal base address of the training service")
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
    promised_seconds: float = setting(
        "CHECKPOINTS_PROMISED_SECONDS",
        "so long the objects stay, whoever deletes them, for a job that has just been told of them",
        default=60.0,
        parse=float,
    )
    import_allowed_hosts: tuple[str, ...] = setting(
        "CHECKPOINTS_IMPORT_ALLOW",
        "private hosts (host or host:port, by commas) that files may be imported from",
        default=(),
        parse=parse_allowed,
    )
    import_tokens: tuple[tuple[str, str], ...] = hidden(
        "CHECKPOINTS_IMPORT_TOKENS",
        "bearer tokens for imports: host=token, by commas; sent to that host over https alone",
        default=(),
        parse=parse_tokens,
    )
    import_most_gb: float = setting(
        "CHECKPOINTS_IMPORT_MAX_GB", "largest file that is imported, in GB", default=64.0, parse=float
    )
    import_least_rate: float = setting(
        "CHECKPOINTS_IMPORT_MIN_RATE",
        "bytes a second below which an import is given up",
        default=2000.0,
        parse=float,
    )
    import_patience: float = setting(
        "CHECKPOINTS_IMPORT_PATIENCE", "seconds over which that rate is looked at", default=60.0, parse=float
    )
    pickles: str = setting(
        "CHECKPOINTS_PICKLES",
        "convert or refuse: what is done with .ckpt, .pt, .pth and .bin files",
        default=CONVERT,
        parse=parse_pickles,
    )
    convert_folder: str = setting(
        "CHECKPOINTS_CONVERT_FOLDER",
        "disk for files while they are converted, twice their size (default: the system's temporary folder)",
        default="",
    )
    converter: str = setting(
        "CHECKPOINTS_CONVERTER",
        "Unix socket of the container without network that converts (default: a process here, by unshare)",
        default="",
    )
    cors_origins: tuple[str, ...] = setting(
        "CORS_ORIGINS",
        "web origins that may use presigned URLs, by commas or spaces",
        default=(),
        parse=parse_origins,
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
