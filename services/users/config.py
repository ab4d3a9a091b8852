"""Settings of the users service."""

from dataclasses import dataclass

from services.common.settings import MongoSettings, hidden, secret, setting


@dataclass(frozen=True)
class PasswordSettings:
    """How dear one guess of a password is (argon2id)."""

    memory_kib: int = setting("PASSWORD_MEMORY_KIB", "argon2id memory of one hash", default=65536, parse=int)
    rounds: int = setting("PASSWORD_ROUNDS", "argon2id passes over that memory", default=3, parse=int)
    lanes: int = setting("PASSWORD_LANES", "argon2id parallel lanes", default=2, parse=int)
    at_once: int = setting(
        "PASSWORD_HASHES_AT_ONCE", "hashes that one process computes at once", default=2, parse=int
    )
    waiting: int = setting(
        "PASSWORD_HASHES_WAITING",
        "requests that wait for their hash in one process; fewer than WEB_THREADS, or sign-ins hold it up",
        default=8,
        parse=int,
    )
    minimum_length: int = setting(
        "PASSWORD_MINIMUM_LENGTH", "shortest password that a new one may be", default=1, parse=int
    )


@dataclass(frozen=True)
class ThrottleSettings:
    """How many sign-ins may fail before further ones are refused for a while."""

    failures_per_pair: int = setting(
        "SIGN_IN_FAILURES", "failed sign-ins of one user from one address in a window", default=10, parse=int
    )
    failures_per_user: int = setting(
        "SIGN_IN_FAILURES_PER_USER", "… of one user from everywhere", default=100, parse=int
    )
    failures_per_address: int = setting(
        "SIGN_IN_FAILURES_PER_ADDRESS", "… of one address for all users", default=200, parse=int
    )
    window_seconds: int = setting(
        "SIGN_IN_WINDOW_SECONDS", "the window in which failures are counted", default=300, parse=int
    )


@dataclass(frozen=True)
class FirstStartSettings:
    """The first administrator and API key, written when there is no user yet."""

    username: str = setting("ADMIN_USERNAME", "name of the first administrator", default="admin")
    password: str = hidden("ADMIN_PASSWORD", "password of the first administrator")
    api_key: str = hidden("ADMIN_API_KEY", "the first API key")


@dataclass(frozen=True)
class Config:
    """Everything that the users service is told from outside."""

    mongo: MongoSettings
    passwords: PasswordSettings
    throttle: ThrottleSettings
    first_start: FirstStartSettings
    service_secret: str = secret("SERVICE_SECRET", "signs service-to-service calls (32 characters or more)")
    redis_url: str = setting(
        "REDIS_URL", "where requests of limited API keys are counted (empty: no limits)", default=""
    )
    access_token_seconds: int = setting(
        "ACCESS_TOKEN_SECONDS", "life of an access token", default=900, parse=int
    )
    refresh_token_days: int = setting("REFRESH_TOKEN_DAYS", "life of a refresh token", default=30, parse=int)
    authentication_cache_seconds: float = setting(
        "AUTHENTICATION_CACHE_SECONDS",
        "how long an answer to the gateway is kept; a deleted user may act for so long",
        default=3.0,
        parse=float,
    )
    checkpoints_url: str = setting("CHECKPOINTS_URL", "whose routes /openapi.json lists too", default="")
    endpoints_url: str = setting("ENDPOINTS_URL", "whose routes /openapi.json lists too", default="")
    inference_url: str = setting(
        "INFERENCE_URL",
        "whose routes /openapi.json lists too, and who forgets the webhooks of former users",
        default="",
    )
    training_url: str = setting("TRAINING_URL", "whose routes /openapi.json lists too", default="")
    datasets_url: str = setting("DATASETS_URL", "whose routes /openapi.json lists too", default="")
    log_level: str = setting("LOG_LEVEL", "least level of log lines", default="INFO")
