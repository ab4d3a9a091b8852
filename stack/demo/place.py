"""Where the demonstration takes place. What only a stack of one's own needs is imported for that alone."""

import contextlib
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

from stack.demo.client import DemoFailed, Target

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = "compose"


@contextlib.contextmanager
def choose_target(arguments: Namespace) -> Iterator[tuple[Target, float]]:
    """The target, and the seconds until it was ready: 0 when it ran already."""
    if arguments.target == COMPOSE:
        yield compose_target(ROOT / ".env"), 0.0
    elif arguments.url:
        if not (arguments.api_key and arguments.password):
            raise DemoFailed("--url needs --api-key and --password, or SDFLEET_API_KEY and SDFLEET_PASSWORD")
        yield Target(arguments.url, arguments.api_key, arguments.username, arguments.password), 0.0
    else:
        from stack.demo.own_stack import running_or_own

        with running_or_own() as found:
            yield found


def compose_target(file: Path) -> Target:
    """The gateway that docker compose publishes on this machine. Raises DemoFailed without .env."""
    if not file.is_file():
        raise DemoFailed(
            f"there is no {file}: run `make secrets`, then `docker compose up -d --build --wait`"
        )
    lines = [line.split("=", 1) for line in file.read_text().splitlines() if "=" in line and line[0] != "#"]
    values = dict(lines)
    scheme = "https" if values.get("GATEWAY_TLS_CERT") else "http"
    return Target(
        url=f"{scheme}://localhost:{values.get('GATEWAY_PORT') or 8080}",
        api_key=values["ADMIN_API_KEY"],
        username=values.get("ADMIN_USERNAME") or "admin",
        password=values["ADMIN_PASSWORD"],
    )
