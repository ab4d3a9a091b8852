"""What one can choose about a stack: its folder, its ports and how many GPU workers it has."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from stack.failures import StackError
from stack.ports import HOST, free_ports
from stack.stores import StorePorts

ROOT = Path(__file__).resolve().parent.parent
DEFAULT_PORTS = {
    "gateway": 8080,
    "users": 8101,
    "checkpoints": 8102,
    "endpoints": 8103,
    "inference": 8104,
    "datasets": 8105,
    "training": 8106,
    "mongodb": 27117,
    "redis": 6479,
    "s3": 8333,
    "s3_grpc": 8334,
    "master": 8335,
    "master_grpc": 8336,
    "volume": 8337,
    "volume_grpc": 8338,
    "filer": 8339,
    "filer_grpc": 8340,
}
BUCKET = "sdfleet"


def port_variable(name: str) -> str:
    """The environment variable that chooses the port of this part."""
    return "SDFLEET_PORT" if name == "gateway" else f"SDFLEET_{name.upper()}_PORT"


@dataclass(frozen=True)
class Settings:
    """Ports by the names of DEFAULT_PORTS, the number of GPU workers, more variables for all processes."""

    ports: Mapping[str, int] = field(default_factory=lambda: dict(DEFAULT_PORTS))
    workers: int = 1
    metrics_port: int = 0  # of the first process that shows metrics, the others follow; 0: none does
    environment: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> "Settings":
        """Read SDFLEET_PORT_BASE (all ports from there on), the ports' own variables, SDFLEET_WORKERS and
        SDFLEET_METRICS_PORT."""
        defaults = DEFAULT_PORTS
        if environ.get("SDFLEET_PORT_BASE"):
            base = _number(environ, "SDFLEET_PORT_BASE", 0)
            defaults = {name: base + place for place, name in enumerate(DEFAULT_PORTS)}
        ports = {name: _number(environ, port_variable(name), port) for name, port in defaults.items()}
        return cls(
            ports=ports,
            workers=_number(environ, "SDFLEET_WORKERS", 1),
            metrics_port=_number(environ, "SDFLEET_METRICS_PORT", 0),
        )

    @classmethod
    def on_free_ports(cls, workers: int = 1, **environment: str) -> "Settings":
        """Ports that are free now, for a second stack beside another."""
        ports = dict(zip(DEFAULT_PORTS, free_ports(len(DEFAULT_PORTS)), strict=True))
        return cls(ports=ports, workers=workers, environment=environment)

    @property
    def store_ports(self) -> StorePorts:
        """The ports of MongoDB, Redis and SeaweedFS."""
        return StorePorts(**{name: self.ports[name] for name in StorePorts.names()})

    def url(self, name: str) -> str:
        """The HTTP address of a part."""
        return f"http://{HOST}:{self.ports[name]}"


def default_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Where the stack keeps everything: SDFLEET_FOLDER, else `.stack` in the repository."""
    return Path(environ.get("SDFLEET_FOLDER") or ROOT / ".stack").resolve()


def _number(environ: Mapping[str, str], variable: str, default: int) -> int:
    text = environ.get(variable) or str(default)
    if not text.isdecimal() or not 0 <= int(text) <= 65535:
        raise StackError(f"{variable} must be a whole number up to 65535, not {text!r}")
    return int(text)
