"""``python -m stack.configuration``: writes docs/configuration.md from the settings' own descriptions."""

import sys
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, dataclass, fields, is_dataclass
from enum import Enum
from importlib import import_module
from typing import Any, get_type_hints

from stack.settings import DEFAULT_PORTS, ROOT, port_variable

FILE = ROOT / "docs" / "configuration.md"
SERVICES = ("users", "checkpoints", "endpoints", "inference", "datasets", "training")
REQUIRED = "**required**"

HEAD = """# Configuration

Made by `make docs` from the settings classes in the code; a test compares the two.

Every process reads its settings from environment variables, once, when it starts. A setting that is missing
or cannot be read ends the process with a sentence that names the variable. An empty variable is one that is
not set. Secrets have no defaults.
"""
GATEWAY = "The gateway's settings are in [gateway/README.md](../gateway/README.md)."


@dataclass(frozen=True)
class Variable:
    """One environment variable, as one settings class describes it."""

    name: str
    default: str
    doc: str


# Beside its own settings, every service has these.
SERVING = (
    Variable("LISTEN", "`0.0.0.0:8000`", "address of a service"),
    Variable("WEB_WORKERS", "`1`", "processes of a service"),
    Variable("WEB_THREADS", "`16`", "threads of each of them"),
    Variable(
        "METRICS_LISTEN",
        "none",
        "HOST:PORT or :PORT where Prometheus is answered ([operations.md](operations.md)); tasks too",
    ),
    Variable(
        "PROMETHEUS_MULTIPROC_DIR",
        "a new folder below `TMPDIR`",
        "where the processes of one service keep the values of their metrics",
    ),
    Variable("OTEL_EXPORTER_OTLP_ENDPOINT", "none", "who takes traces, by OTLP over HTTP; GPU workers too"),
    Variable("OTEL_TRACES_SAMPLER_ARG", "`1`", "the share of requests that are traced"),
)


def of_services() -> dict[str, list[Variable]]:
    """The variables of every service."""
    return {name: list(_flat(import_module(f"services.{name}.config").Config)) for name in SERVICES}


def _flat(settings: type[Any]) -> Iterator[Variable]:
    """The variables of a settings class and of those inside it."""
    types = get_type_hints(settings)
    for entry in fields(settings):
        if "variable" in entry.metadata:
            default = REQUIRED if entry.default is MISSING else _shown(entry.default)
            yield Variable(entry.metadata["variable"], default, entry.metadata["doc"])
        elif is_dataclass(types[entry.name]):
            yield from _flat(types[entry.name])


def _shown(default: Any) -> str:
    """A default as one would write it into the environment."""
    if isinstance(default, bool):
        return "`yes`" if default else "`no`"
    if isinstance(default, Enum):
        return f"`{default.value}`"
    if isinstance(default, int | float):
        return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"
    if isinstance(default, str) and default:
        return f"`{default}`"
    if isinstance(default, tuple | list) and default and all(isinstance(one, str) for one in default):
        return f"`{','.join(default)}`"
    return "none"


def of_worker(settings: str) -> list[Variable]:
    """The variables of one of the GPU worker's settings classes."""
    chosen = getattr(import_module("gpu_worker.config"), settings)
    return [
        Variable(entry.metadata["variable"], _in_words(entry.metadata["usual"]), entry.metadata["doc"])
        for entry in fields(chosen)
        if entry.metadata
    ]


def _in_words(usual: str) -> str:
    return f"`{usual}`" if usual and " " not in usual and usual != "none" else usual or REQUIRED


def document() -> str:
    """The whole of docs/configuration.md."""
    by_service = of_services()
    readers: dict[str, list[str]] = {}
    for service, variables in by_service.items():
        for variable in dict.fromkeys(one.name for one in variables):
            readers.setdefault(variable, []).append(service)
    parts = [HEAD, "## Shared by services\n", _shared(by_service, readers)]
    for service, variables in by_service.items():
        own = [variable for variable in variables if readers[variable.name] == [service]]
        if own:
            parts += [f"## {service.capitalize()}\n", _table(own)]
    parts += [
        "## Serving, metrics and traces\n",
        "Read beside a service's own settings.\n",
        _table(SERVING),
        "## GPU worker\n",
        _table(of_worker("WorkerConfig")),
        "## GPU worker on Amazon SageMaker\n",
        "It is given no address and no secret of the platform. As an endpoint:\n",
        _table(of_worker("ServeConfig")),
        "As a training job:\n",
        _table(of_worker("TrainConfig")),
        "## Gateway\n",
        f"{GATEWAY}\n",
        "## The stack on one machine\n",
        _stack(),
    ]
    return "\n".join(parts)


def _shared(by_service: dict[str, list[Variable]], readers: dict[str, list[str]]) -> str:
    """Variables of several services: once each, with all that is said of them."""
    lines = ["| variable | read by | default | meaning |", "|---|---|---|---|"]
    for name, services in readers.items():
        if len(services) == 1:
            continue
        described = {service: _of(by_service[service], name) for service in services}
        meanings = dict.fromkeys(variable.doc for variable in described.values())
        who = "all services" if len(services) == len(SERVICES) else ", ".join(services)
        lines.append(f"| `{name}` | {who} | {_defaults(described)} | {_cell('; '.join(meanings))} |")
    return "\n".join(lines) + "\n"


def _of(variables: Iterable[Variable], name: str) -> Variable:
    return next(variable for variable in variables if variable.name == name)


def _defaults(described: dict[str, Variable]) -> str:
    """The default, with whose it is where services differ."""
    found: dict[str, list[str]] = {}
    for service, variable in described.items():
        found.setdefault(variable.default, []).append(service)
    if len(found) == 1:
        return next(iter(found))
    return "; ".join(f"{', '.join(services)}: {default}" for default, services in found.items())


def _table(variables: Iterable[Variable]) -> str:
    lines = ["| variable | default | meaning |", "|---|---|---|"]
    lines += [f"| `{one.name}` | {one.default} | {_cell(one.doc)} |" for one in variables]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _stack() -> str:
    """What `make up` reads beside the settings above, which it passes on."""
    ports = ", ".join(f"`{port_variable(name)}` {port}" for name, port in DEFAULT_PORTS.items())
    lines = [
        "`make up` passes every variable above on, and chooses addresses and secrets itself.\n",
        "| variable | default | meaning |",
        "|---|---|---|",
        "| `SDFLEET_FOLDER` | `.stack` | data, logs and secrets (`secrets.json`, mode 600) |",
        "| `SDFLEET_PORT_BASE` | none | all ports from there on, for a second stack |",
        "| `SDFLEET_WORKERS` | `1` | GPU workers |",
        "| `SDFLEET_METRICS_PORT` | none | each process shows its metrics on a port from there on |",
        "",
        f"Ports on 127.0.0.1: {ports}.",
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Write the file."""
    FILE.write_text(document(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
