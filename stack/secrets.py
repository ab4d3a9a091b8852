"""The secrets of one stack: made once, kept in a file that only its owner reads."""

import json
import os
import secrets
from dataclasses import asdict, dataclass, field
from pathlib import Path

ADMIN_USERNAME = "admin"


def _random() -> str:
    return secrets.token_urlsafe(32)


@dataclass(frozen=True, repr=False)
class Secrets:
    """What the parts of a stack prove themselves with."""

    admin_password: str = field(default_factory=lambda: secrets.token_urlsafe(15))
    api_key: str = field(default_factory=_random)
    service_secret: str = field(default_factory=_random)
    worker_secret: str = field(default_factory=_random)
    s3_access_key: str = field(default_factory=lambda: secrets.token_hex(10))
    s3_secret_key: str = field(default_factory=lambda: secrets.token_hex(20))


def load_or_make(folder: Path) -> Secrets:
    """The secrets of the stack in this folder, made at first use."""
    path = folder / "secrets.json"
    if path.exists():
        path.chmod(0o600)
        return Secrets(**json.loads(path.read_text()))
    made = Secrets()
    write_private(path, json.dumps(asdict(made), indent=1))
    return made


def write_private(path: Path, text: str) -> None:
    """Replace a file in one step; it is never readable by others, and never half written."""
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    fresh.replace(path)
