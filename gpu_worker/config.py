"""The worker's settings, read from the environment once."""

import csv
import os
import secrets
import socket
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field
from pathlib import Path
from typing import Any

from gpu_worker.styles import NO_STYLES, Styles

GIGABYTE = 10**9
SECRET_LENGTH = 32


class ConfigError(Exception):
    """A setting is missing or wrong; the text says which and what to do."""


def _read_from(variable: str, doc: str, usual: str = "", default: Any = MISSING) -> Any:
    """A field read from `variable`; `doc` and `usual`, its default in words, are for the reference."""
    metadata = {"variable": variable, "doc": doc, "usual": usual}
    return field(metadata=metadata) if default is MISSING else field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """What every front needs; sizes in bytes, times in seconds."""

    worker_id: str = _read_from("WORKER_ID", "the worker's name", "host and a random part")
    cache_dir: Path = _read_from(  # noqa: RUF009 - a field, as the others
        "WORKER_CACHE_DIR", "where checkpoint files are kept", "~/.cache/sdfleet"
    )
    disk_cache_bytes: int = _read_from("WORKER_DISK_CACHE_GB", "how much of them", "50")
    memory_cache_bytes: int | None = _read_from(
        "WORKER_MEMORY_CACHE_GB", "models in memory", "60% of the GPU's memory, on a CPU 40% of all"
    )
    grace_seconds: float = _read_from(
        "WORKER_GRACE_SECONDS", "how long a job may go on after SIGTERM before it is given back", "20"
    )
    log_level: str = _read_from("LOG_LEVEL", "least level of log lines", "INFO")
    metrics_listen: str = _read_from(
        "METRICS_LISTEN", "HOST:PORT or :PORT where Prometheus is answered", "none"
    )
    ram_cache_bytes: int | None = _read_from(
        "WORKER_RAM_CACHE_GB", "models in RAM that had to leave the GPU", "40% of the RAM; on a CPU none"
    )
    batch_jobs: int = _read_from("WORKER_BATCH_JOBS", "compatible jobs that are computed at once", "8")
    batch_pixels: int | None = _read_from(
        "WORKER_BATCH_PIXELS",
        "pixels of pictures that are made at once",
        "one for 3,000 bytes of GPU memory; on a CPU 65,536",
    )
    precision: str = _read_from(
        "WORKER_PRECISION", "auto (fp16 on a GPU, fp32 on a CPU), fp16, bf16 or fp32", "auto"
    )
    compiled: bool = _read_from(
        "WORKER_COMPILE", "yes: models are compiled by torch.compile at their first use", "no"
    )
    nsfw: str = _read_from(
        "WORKER_NSFW",
        "what happens to pictures that are not safe for work: off, blur, black or fail",
        "off",
    )
    nsfw_model: Path | None = _read_from(  # noqa: RUF009 - a field, as the others
        "WORKER_NSFW_MODEL",
        "the classifier's .onnx file, which must be there unless WORKER_NSFW is off",
        "none",
    )
    nsfw_threshold: float = _read_from("WORKER_NSFW_THRESHOLD", "how sure it must be, 0 to 1", "0.5")
    styles: Styles = _read_from(  # noqa: RUF009 - a field, as the others
        "WORKER_STYLES_FILE", "the WebUI's styles.csv, which requests name in `styles`", "none"
    )


@dataclass(frozen=True, slots=True)
class WorkerConfig(EngineConfig):
    """Settings of a process that claims jobs."""

    endpoints_url: str = _read_from("ENDPOINTS_URL", "internal base address of the endpoints service")
    inference_url: str = _read_from("INFERENCE_URL", "internal base address of the inference service")
    redis_url: str = _read_from("REDIS_URL", "Redis, where bells are heard")
    worker_secret: str = _read_from("WORKER_SECRET", "signs the worker's calls (32 characters or more)")
    instance_type: str | None = _read_from(
        "WORKER_INSTANCE_TYPE", "what endpoints ask for as `instance_type`", "local.gpu or local.cpu"
    )
    slots: int = _read_from("WORKER_SLOTS", "endpoint instances that it may serve", "4")
    training_url: str | None = _read_from(
        "TRAINING_URL", "internal base address of the training service", "no trainings and merges", None
    )
    alive_file: Path | None = _read_from(  # noqa: RUF009
        "WORKER_ALIVE_FILE", "a file that is touched while the worker lives, for a health check", "none", None
    )
    state_seconds: float = _read_from(
        "TRAINING_STATE_SECONDS", "a training saves its state every so many seconds", "60", 60.0
    )
    training_quiet_seconds: float = _read_from(
        "WORKER_TRAINING_QUIET_SECONDS",
        "when endpoints hold every slot: a training begins beside them after so many seconds without a job",
        "60",
        60.0,
    )
    heartbeat_seconds: float = 2.0
    claim_seconds: float = 2.0

    @classmethod
    def from_env(cls, environment: Mapping[str, str] | None = None) -> "WorkerConfig":
        """Reads the variables that ``docs/configuration.md`` lists; raises `ConfigError`."""
        environment = os.environ if environment is None else environment
        return cls(
            endpoints_url=_url(environment, "ENDPOINTS_URL"),
            inference_url=_url(environment, "INFERENCE_URL"),
            redis_url=_required(environment, "REDIS_URL"),
            worker_secret=_secret(environment),
            instance_type=environment.get("WORKER_INSTANCE_TYPE") or None,
            slots=int(_number(environment, "WORKER_SLOTS", 4, minimum=1)),
            training_url=_url(environment, "TRAINING_URL") if environment.get("TRAINING_URL") else None,
            alive_file=Path(alive) if (alive := environment.get("WORKER_ALIVE_FILE")) else None,
            state_seconds=_state_seconds(environment),
            training_quiet_seconds=_number(environment, "WORKER_TRAINING_QUIET_SECONDS", 60, minimum=0),
            **_engine(environment),
        )


@dataclass(frozen=True, slots=True)
class ServeConfig(EngineConfig):
    """Settings of a process that answers SageMaker on `port`: it knows no address and no secret of ours."""

    port: int = _read_from("SAGEMAKER_BIND_TO_PORT", "its port, set by SageMaker", "8080")

    @classmethod
    def from_env(cls, environment: Mapping[str, str] | None = None) -> "ServeConfig":
        """Reads the variables that ``docs/configuration.md`` lists; raises `ConfigError`."""
        environment = os.environ if environment is None else environment
        # SageMaker's own variable; it asks port 8080 unless it has set another one.
        port = _number(environment, "SAGEMAKER_BIND_TO_PORT", 8080, minimum=1)
        return cls(port=int(port), **_engine(environment))


@dataclass(frozen=True, slots=True)
class TrainConfig(EngineConfig):
    """Settings of a SageMaker training job: it knows no address and no secret of ours."""

    root: Path = _read_from(  # noqa: RUF009
        "SAGEMAKER_TRAINING_ROOT", "where SageMaker puts inputs and takes results", "/opt/ml"
    )
    state_seconds: float = _read_from(
        "TRAINING_STATE_SECONDS", "a training saves its state every so many seconds", "60"
    )

    @classmethod
    def from_env(cls, environment: Mapping[str, str] | None = None) -> "TrainConfig":
        """Reads the variables that ``docs/configuration.md`` lists; raises `ConfigError`."""
        environment = os.environ if environment is None else environment
        return cls(
            root=Path(environment.get("SAGEMAKER_TRAINING_ROOT") or "/opt/ml"),
            state_seconds=_state_seconds(environment),
            **_engine(environment),
        )


def _state_seconds(environment: Mapping[str, str]) -> float:
    return _number(environment, "TRAINING_STATE_SECONDS", 60, minimum=1)


def _engine(environment: Mapping[str, str]) -> dict[str, Any]:
    memory = environment.get("WORKER_MEMORY_CACHE_GB")
    return {
        "worker_id": environment.get("WORKER_ID") or f"{socket.gethostname()}-{secrets.token_hex(4)}",
        "cache_dir": Path(environment.get("WORKER_CACHE_DIR") or "~/.cache/sdfleet").expanduser(),
        "disk_cache_bytes": int(_number(environment, "WORKER_DISK_CACHE_GB", 50, minimum=0) * GIGABYTE),
        "memory_cache_bytes": int(_number(environment, "WORKER_MEMORY_CACHE_GB", 0, minimum=0) * GIGABYTE)
        if memory
        else None,
        "grace_seconds": _number(environment, "WORKER_GRACE_SECONDS", 20, minimum=0),
        "styles": _styles(environment),
        "log_level": (environment.get("LOG_LEVEL") or "INFO").upper(),
        "metrics_listen": environment.get("METRICS_LISTEN", ""),
        "ram_cache_bytes": int(_number(environment, "WORKER_RAM_CACHE_GB", 0, minimum=0) * GIGABYTE)
        if environment.get("WORKER_RAM_CACHE_GB")
        else None,
        "batch_jobs": int(_number(environment, "WORKER_BATCH_JOBS", 8, minimum=1)),
        "batch_pixels": int(_number(environment, "WORKER_BATCH_PIXELS", 0, minimum=0)) or None,
        "precision": _choice(environment, "WORKER_PRECISION", ("auto", "fp16", "bf16", "fp32")),
        **_nsfw(environment),
        "compiled": _choice(environment, "WORKER_COMPILE", ("no", "yes")) == "yes",
    }


def _nsfw(environment: Mapping[str, str]) -> dict[str, Any]:
    """The filter of pictures: never silently off because its file is not there."""
    policy = _choice(environment, "WORKER_NSFW", ("off", "blur", "black", "fail"))
    name = environment.get("WORKER_NSFW_MODEL")
    path = Path(name).expanduser() if name else None
    if policy != "off" and (path is None or not path.is_file()):
        raise ConfigError(
            f"WORKER_NSFW is {policy}, and WORKER_NSFW_MODEL names no file ({path}): name the .onnx file "
            "of a classifier, or set WORKER_NSFW=off"
        )
    threshold = _number(environment, "WORKER_NSFW_THRESHOLD", 0.5, minimum=0)
    return {"nsfw": policy, "nsfw_model": path, "nsfw_threshold": threshold}


def _styles(environment: Mapping[str, str]) -> Styles:
    name = environment.get("WORKER_STYLES_FILE")
    if not name:
        return NO_STYLES
    try:
        return Styles.from_file(Path(name).expanduser())
    except (OSError, ValueError, csv.Error) as error:
        raise ConfigError(f"WORKER_STYLES_FILE {name} cannot be read as a styles.csv: {error}") from None


def _required(environment: Mapping[str, str], name: str) -> str:
    value = environment.get(name, "")
    if not value:
        raise ConfigError(f"{name} is not set; docs/configuration.md says what it means")
    return value


def _url(environment: Mapping[str, str], name: str) -> str:
    value = _required(environment, name).rstrip("/")
    if not value.startswith(("http://", "https://")):
        raise ConfigError(f"{name} must begin with http:// or https://, not {value!r}")
    return value


def _secret(environment: Mapping[str, str]) -> str:
    value = _required(environment, "WORKER_SECRET")
    if len(value) < SECRET_LENGTH:
        raise ConfigError(f"WORKER_SECRET must have at least {SECRET_LENGTH} characters, it has {len(value)}")
    return value


def _choice(environment: Mapping[str, str], name: str, allowed: tuple[str, ...]) -> str:
    """One of the allowed words, the first when nothing is said."""
    value = (environment.get(name) or allowed[0]).lower()
    if value not in allowed:
        raise ConfigError(f"{name} must be one of {', '.join(allowed)}, not {value!r}")
    return value


def _number(environment: Mapping[str, str], name: str, default: float, minimum: float) -> float:
    text = environment.get(name)
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        raise ConfigError(f"{name} must be a number, not {text!r}") from None
    if not minimum <= value < float("inf"):
        raise ConfigError(f"{name} must be at least {minimum:g} and finite, not {text}")
    return value
