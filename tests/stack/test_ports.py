"""Ports in use."""

import os
import socket
from collections.abc import Iterator

import pytest

from stack import ports
from stack.failures import StackError


@pytest.fixture()
def taken() -> Iterator[int]:
    with socket.create_server((ports.HOST, 0)) as server:
        yield server.getsockname()[1]


def test_a_port_in_use_is_named_with_its_holder_and_the_variable_that_changes_it(taken: int) -> None:
    with pytest.raises(StackError) as failure:
        ports.require_free(taken, "gateway", "SDFLEET_PORT")
    sentence = str(failure.value)
    assert f"port {taken} for gateway is in use by" in sentence
    assert f"(pid {os.getpid()})" in sentence
    assert "SDFLEET_PORT=PORT" in sentence


def test_a_free_port_is_no_problem(taken: int) -> None:
    free = next(port for port in ports.free_ports(2) if port != taken)
    ports.require_free(free, "gateway", "SDFLEET_PORT")


def test_free_ports_are_distinct() -> None:
    found = ports.free_ports(20)
    assert len(set(found)) == 20
