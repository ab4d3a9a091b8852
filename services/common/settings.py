"""Settings from the environment, read once into frozen dataclasses."""

import os
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any, TypeVar

T = TypeVar("T")

MINIMUM_SECRET_LENGTH = 32


class SettingsError(Exception):
    """A setting is missing or wrong; the text says which and what to do."""


def setting(
    variable: str,
    doc: str,
    default: Any = MISSING,
    parse: Callable[[str], Any] = str,
) -> Any:
    """A dataclass field that is read from the environment variable `variable`.

    `doc` is one line for the configuration reference. Without `default` the variable is required.
    """
    metadata = {"variable": variable, "doc": doc, "parse": parse}
    if default is MISSING:
        return field(metadata=metadata)
    return field(default=default, metadata=metadata)


def hidden(variable: str, doc: str, default: Any = "", parse: Callable[[str], Any] = str) -> Any:
    """A setting with a default that `repr` never shows."""
    return field(default=default, repr=False, metadata={"variable": variable, "doc": doc, "parse": parse})


def secret(variable: str, doc: str) -> Any:
    """A required setting of at least 32 characters that `repr` never shows."""
    return field(repr=False, metadata={"variable": variable, "doc": doc, "parse": _long_enough})


def read_settings(cls: type[T], environ: Mapping[str, str] | None = None) -> T:
    """Read a settings dataclass from the environment.

    Raises SettingsError that names every missing or unreadable variable at once.
    """
    environ = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    problems: list[str] = []
    for entry in fields(cls):  # type: ignore[arg-type]
        try:
            _read_one(entry, environ, values)
        except SettingsError as problem:
            problems.append(str(problem))
    if problems:
        raise SettingsError("; ".join(problems))
    return cls(**values)


def _read_one(entry: Field[Any], environ: Mapping[str, str], values: dict[str, Any]) -> None:
    if "variable" not in entry.metadata:
        values[entry.name] = read_settings(entry.type, environ)  # type: ignore[arg-type]
        return
    variable = entry.metadata["variable"]
    text = environ.get(variable, "")
    if text == "":
        if entry.default is MISSING:
            raise SettingsError(f"set {variable}: {entry.metadata['doc']}")
        return
    try:
        values[entry.name] = entry.metadata["parse"](text)
    except ValueError as error:
        # The value itself may be a secret: it is not repeated.
        raise SettingsError(f"{variable} is not usable: {error}") from None


def _long_enough(text: str) -> str:
    if len(text) < MINIMUM_SECRET_LENGTH:
        raise ValueError(f"it needs at least {MINIMUM_SECRET_LENGTH} characters")
    return text


def yes_or_no(text: str) -> bool:
    """Parse a yes/no setting."""
    if text.lower() in {"1", "true", "yes", "on"}:
        return True
    if text.lower() in {"0", "false", "no", "off"}:
        return False
    raise ValueError("it must be yes or no")


@dataclass(frozen=True)
class MongoSettings:
    """Where a service keeps its collections."""

    url: str = setting("MONGODB_URL", "MongoDB connection string of a replica set")
    database_prefix: str = setting(
        "MONGODB_DATABASE_PREFIX", "databases are named PREFIX_SERVICE", default="sdfleet"
    )


@dataclass(frozen=True)
class S3Settings:
    """The object store: where services, clients and GPU workers reach it."""

    endpoint_url: str = setting("S3_ENDPOINT_URL", "S3 address that services use (empty: AWS)", default="")
    public_url: str = setting(
        "S3_PUBLIC_URL", "S3 address that clients use (default: S3_ENDPOINT_URL)", default=""
    )
    worker_url: str = setting(
        "S3_WORKER_URL", "S3 address that GPU workers use (default: S3_ENDPOINT_URL)", default=""
    )
    bucket: str = setting("S3_BUCKET", "the platform's bucket, made when it is missing", default="sdfleet")
    region: str = setting("S3_REGION", "S3 region", default="us-east-1")
    access_key: str = setting("AWS_ACCESS_KEY_ID", "S3 access key (empty: the AWS default chain)", default="")
    secret_key: str = hidden("AWS_SECRET_ACCESS_KEY", "S3 secret key")
    url_seconds: int = setting(
        "S3_URL_SECONDS", "life of presigned URLs in seconds", default=43200, parse=int
    )


@dataclass(frozen=True)
class InternalSettings:
    """How a service proves itself to the others and verifies who calls."""

    service_secret: str = secret("SERVICE_SECRET", "signs service-to-service calls (32 characters or more)")
    users_url: str = setting("USERS_URL", "internal base address of the users service")
