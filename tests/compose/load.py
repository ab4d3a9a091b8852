"""So many requests a second through the gateway, and what became of each."""

import contextlib
import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import requests

from stack.demo.client import Target

PATHS = {
    "users": "/users",
    "checkpoints": "/checkpoints",
    "endpoints": "/endpoints",
    "inference": "/inferences",
    "datasets": "/datasets",
    "training": "/trainings",
}
CREATE = "create"  # a POST that is refused as empty
CLIENTS = 25


@dataclass
class Outcomes:
    """What was answered: statuses, and failures to answer, by how often; the failures one by one."""

    counts: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, what: str, good: bool) -> None:
        with self.lock:
            self.counts[what] += 1
            if not good:
                self.failed.append(what)

    @property
    def total(self) -> int:
        return sum(self.counts.values())


def sign_in(target: Target) -> str:
    """A token of the administrator, as soon as there is one to be had."""
    tokens: list[str] = []

    def signed_in() -> bool:
        answer = requests.post(
            f"{target.url}/auth/token",
            json={"username": target.username, "password": target.password},
            headers={"x-api-key": target.api_key},
            timeout=60,
        )
        tokens.append(answer.json()["data"]["access_token"])
        return True

    until(signed_in)
    return tokens[0]


@contextlib.contextmanager
def load(target: Target, services: tuple[str, ...], per_second: float = 50.0) -> Iterator[Outcomes]:
    """Requests at this rate, by 25 clients in turn, to the services in turn, until the block ends."""
    headers = {"x-api-key": target.api_key, "Authorization": f"Bearer {sign_in(target)}"}
    outcomes, over, places = Outcomes(), threading.Event(), itertools.cycle(services)
    started, numbers = time.monotonic(), itertools.count()

    def client() -> None:
        session = requests.Session()
        session.headers.update(headers)
        while not over.is_set():
            due = started + next(numbers) / per_second
            if over.wait(max(0.0, due - time.monotonic())):
                return
            _ask(session, target.url, next(places), outcomes)

    clients = [threading.Thread(target=client) for _ in range(CLIENTS)]
    for thread in clients:
        thread.start()
    try:
        yield outcomes
    finally:
        over.set()
        for thread in clients:
            thread.join()


def _ask(session: requests.Session, url: str, service: str, outcomes: Outcomes) -> None:
    try:
        if service == CREATE:  # a gateway never sends it twice: the replica that has it must answer
            answer = session.post(f"{url}/datasets", json={}, timeout=60)
        else:
            answer = session.get(f"{url}{PATHS[service]}", timeout=60)
    except requests.RequestException as error:
        outcomes.add(f"{service} {type(error).__name__}", good=False)
        return
    outcomes.add(f"{service} {answer.status_code}", good=answer.status_code < 500)


def until(condition: Callable[[], bool], seconds: float = 300) -> None:
    """Wait for a condition; what is not answered counts as not yet."""
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(requests.RequestException, KeyError):
            if condition():
                return
        assert time.monotonic() < deadline, f"this did not come true in {seconds} s"
        time.sleep(0.2)
