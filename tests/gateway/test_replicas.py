"""Replicas that come, go and die while requests go on."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from dnslib import QTYPE, RR, A
from dnslib.server import BaseResolver, DNSLogger, DNSServer

from tests.gateway.conftest import Services
from tests.gateway.running import HOST, Gateway, echo, free_port, gateway, wait_for


class Names(BaseResolver):
    """A DNS server whose answers tests change."""

    def __init__(self) -> None:
        self.addresses: list[str] = []

    def resolve(self, request, handler):
        reply = request.reply()
        if request.q.qtype == QTYPE.A:
            for address in self.addresses:
                reply.add_answer(RR(request.q.qname, QTYPE.A, rdata=A(address), ttl=3600))
        return reply


@pytest.fixture()
def names() -> Iterator[tuple[Names, int]]:
    resolver, port = Names(), free_port()
    server = DNSServer(resolver, port=port, address=HOST, logger=DNSLogger(log="-request,-reply"))
    server.start_thread()
    yield resolver, port
    server.stop()
    server.server.server_close()


def replicas_heard(gate: Gateway, requests: int = 12) -> set[str]:
    """Which replicas answer; every answer must be good."""
    heard = set()
    for _ in range(requests):
        answer = gate.call("GET", "/checkpoints")
        assert answer.status_code == 200, answer.text
        heard.add(answer.json()["name"])
    return heard


def test_the_gateway_finds_new_replicas_and_leaves_old_ones_without_losing_a_request(
    services: Services, gate: Gateway, names: tuple[Names, int], tmp_path: Path
) -> None:
    dns, dns_port = names
    with echo("first", "127.0.0.2") as first, echo("second", "127.0.0.3", first.server_port) as second:
        dns.addresses = ["127.0.0.2"]
        upstream = f"server checkpoints.test:{first.server_port} resolve;"
        settings = {"CHECKPOINTS_UPSTREAM": upstream, "RESOLVER": f"{HOST}:{dns_port}"}
        with gateway(tmp_path, **(services.upstreams | settings)) as scaled:
            scaled.token = gate.token
            wait_for(lambda: scaled.call("GET", "/checkpoints").status_code == 200)
            assert replicas_heard(scaled) == {"first"}
            dns.addresses = ["127.0.0.2", "127.0.0.3"]
            wait_for(lambda: replicas_heard(scaled) == {"first", "second"})
            dns.addresses = ["127.0.0.3"]
            wait_for(lambda: replicas_heard(scaled) == {"second"})
            assert second.name == "second"


@contextlib.contextmanager
def silent(host: str, port: int) -> Iterator[None]:
    """An address whose connections are never made, as that of a machine that is gone."""
    with contextlib.ExitStack() as opened:
        full = opened.enter_context(socket.socket())
        full.bind((host, port))
        full.listen(0)
        for _ in range(4):  # more than its queue takes: what comes then is not answered at all
            waiting = opened.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex((host, port))
        yield


def test_a_replica_that_vanishes_with_its_name_costs_no_request(
    services: Services, gate: Gateway, names: tuple[Names, int], tmp_path: Path
) -> None:
    dns, dns_port = names
    with echo("there", "127.0.0.3") as there, silent("127.0.0.2", there.server_port):
        dns.addresses = ["127.0.0.2", "127.0.0.3"]
        upstream = f"server checkpoints.test:{there.server_port} resolve max_fails=0;"
        settings = {"CHECKPOINTS_UPSTREAM": upstream, "RESOLVER": f"{HOST}:{dns_port}"}
        with gateway(tmp_path, **(services.upstreams | settings)) as scaled:
            scaled.token = gate.token
            wait_for(lambda: scaled.call("GET", "/checkpoints").status_code == 200)
            statuses: list[int] = []

            def ask(method: str) -> None:
                statuses.extend(scaled.call(method, "/checkpoints").status_code for _ in range(4))

            asking = [threading.Thread(target=ask, args=(method,)) for method in ("GET", "POST") * 6]
            for thread in asking:
                thread.start()
            dns.addresses = ["127.0.0.3"]
            for thread in asking:
                thread.join()
            assert set(statuses) == {200}


def test_a_killed_replica_costs_no_idempotent_request(
    services: Services, gate: Gateway, tmp_path: Path
) -> None:
    with echo("first") as first, echo("second") as second:
        servers = " ".join(f"server {HOST}:{replica.server_port};" for replica in (first, second))
        with gateway(tmp_path, **(services.upstreams | {"CHECKPOINTS_UPSTREAM": servers})) as scaled:
            scaled.token = gate.token
            assert replicas_heard(scaled) == {"first", "second"}
            statuses: list[int] = []
            stop = threading.Event()

            def ask() -> None:
                while not stop.is_set():
                    statuses.append(scaled.call("GET", "/checkpoints").status_code)

            asking = [threading.Thread(target=ask) for _ in range(3)]
            for thread in asking:
                thread.start()
            first.die()
            seen = len(statuses)
            wait_for(lambda: len(statuses) > seen + 60)
            stop.set()
            for thread in asking:
                thread.join()
            assert set(statuses) == {200}
            assert replicas_heard(scaled) == {"second"}
