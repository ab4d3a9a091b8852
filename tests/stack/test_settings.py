"""What one can choose about a stack."""

import pytest

from stack.failures import StackError
from stack.settings import DEFAULT_PORTS, Settings


def test_the_defaults_are_the_documented_ports() -> None:
    settings = Settings.from_env({})
    assert settings.url("gateway") == "http://127.0.0.1:8080"
    assert (settings.ports["mongodb"], settings.ports["redis"], settings.ports["s3"]) == (27117, 6479, 8333)
    assert settings.workers == 1


def test_a_port_base_moves_every_port() -> None:
    ports = Settings.from_env({"SDFLEET_PORT_BASE": "20000"}).ports
    assert sorted(ports.values()) == list(range(20000, 20000 + len(DEFAULT_PORTS)))


def test_one_port_can_be_chosen_alone() -> None:
    ports = Settings.from_env({"SDFLEET_PORT": "9000", "SDFLEET_REDIS_PORT": "9001"}).ports
    assert (ports["gateway"], ports["redis"], ports["users"]) == (9000, 9001, 8101)


@pytest.mark.parametrize("text", ["http", "-1", "70000", "8080.5"])
def test_what_is_no_port_is_refused_by_name(text: str) -> None:
    with pytest.raises(StackError, match="SDFLEET_PORT must be a whole number"):
        Settings.from_env({"SDFLEET_PORT": text})
