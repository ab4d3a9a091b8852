"""One gateway and one users service for all of these tests."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.gateway.running import HOST, Gateway, echo, free_port, gateway, users_service


@dataclass(frozen=True)
class Services:
    """Where the services behind the gateway are, as nginx upstreams, and the users service's port and log."""

    upstreams: dict[str, str]
    users_port: int
    users_log: Path


@pytest.fixture(scope="session")
def services(
    environment: Callable[..., dict[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Services]:
    """The users service and stand-ins for the others."""
    folder, port = tmp_path_factory.mktemp("services"), free_port()
    with ExitStack() as started:
        upstreams = {"USERS_UPSTREAM": f"server {HOST}:{port};"}
        for name in ("checkpoints", "endpoints", "inference", "datasets", "training"):
            server = started.enter_context(echo(name))
            upstreams[f"{name.upper()}_UPSTREAM"] = f"server {HOST}:{server.server_port};"
        started.enter_context(users_service(folder, environment(), port))
        yield Services(upstreams, port, folder / "users.log")


@pytest.fixture(scope="session")
def gate(services: Services, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """The gateway in front of them, with the administrator's token."""
    settings = {
        "CORS_ORIGINS": "https://app.example.org, https://other.example.org:8443",
        "GATEWAY_CLIENT_TIMEOUT_SECONDS": "1",
    }
    with gateway(tmp_path_factory.mktemp("gate"), **(services.upstreams | settings)) as running:
        running.token = running.sign_in()["access_token"]
        yield running
