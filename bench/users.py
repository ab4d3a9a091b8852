"""Listing and signing in with 100,000 users, beside 1,000 users in the same run."""

import secrets
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from services.common.paging import next_key
from services.common.settings import read_settings
from services.common.times import now
from services.users.app import create_app
from services.users.config import Config
from services.users.parts import EXTENSION, Parts
from services.users.repository import DEFAULT_ROLE
from stack.infrastructure import Infrastructure, infrastructure
from tests.users.driver import ADMIN, ADMIN_KEY, ADMIN_PASSWORD, Driver, Person

FEW, MANY = 1_000, 100_000
ROUNDS = 30
SIGN_INS = 10
PAGE = 100
BATCH = 5_000
PASSWORD = "the password of every user here"


def run() -> dict[str, Any]:
    """Milliseconds of each call with many users, and their ratio to those with few; medians, in turns."""
    with (
        tempfile.TemporaryDirectory(prefix="sdfleet-bench-") as folder,
        infrastructure(Path(folder)) as parts,
    ):
        few, many = Deployment(parts, FEW), Deployment(parts, MANY)
        figures: dict[str, Any] = {"users": MANY, "beside": FEW}
        for name, call in CALLS.items():
            rounds = SIGN_INS if name == "sign_in" else ROUNDS
            of_few, of_many = alternate(partial(call, few), partial(call, many), rounds)
            figures |= {f"{name}_ms": round(of_many, 2), f"{name}_ratio": round(of_many / of_few, 2)}
        settings = few.config.passwords
    return figures | {
        "argon2id": f"{settings.memory_kib // 1024} MiB, {settings.rounds} passes, {settings.lanes} lanes",
        "page": PAGE,
    }


class Deployment:
    """A users service with so many users; every method is one call of a client, and must succeed."""

    def __init__(self, parts: Infrastructure, users: int) -> None:
        environment = {
            "MONGODB_URL": parts.mongodb_url,
            "MONGODB_DATABASE_PREFIX": f"bench_{users}",
            "SERVICE_SECRET": secrets.token_hex(24),
            "AUTHENTICATION_CACHE_SECONDS": "0",
            "ADMIN_PASSWORD": ADMIN_PASSWORD,
            "ADMIN_API_KEY": ADMIN_KEY,
        }
        self.config = read_settings(Config, environment)
        self._driver = Driver(create_app(self.config))
        self._some = f"user-{users // 2}"
        made: Parts = self._driver.app.extensions[EXTENSION]
        password_hash = made.passwords.hash(PASSWORD)
        collection = made.repository._users
        for batch in _batches(users, password_hash):
            collection.insert_many(batch, ordered=False)
        self._creator = self._driver.sign_in("user-7", PASSWORD)
        self._middle = self._key_of_page(self._some)

    def first_page(self) -> None:
        """The first page."""
        assert len(self._users(f"/users?limit={PAGE}")) == PAGE

    def middle_page(self) -> None:
        """A page in the middle."""
        assert len(self._users(f"/users?limit={PAGE}&last_evaluated_key={self._middle}")) == PAGE

    def own_users(self) -> None:
        """What somebody with user:list has created: a few of all."""
        assert len(self._users(f"/users?limit={PAGE}", self._creator)) > 1

    def by_name(self) -> None:
        """One user."""
        assert len(self._users(f"/users?username={self._some}")) == 1

    def authenticate(self) -> None:
        """The gateway's question, without the cache."""
        headers = {"x-api-key": ADMIN_KEY, "Authorization": f"Bearer {self._creator.token}"}
        assert self._driver.ask(headers).status_code == 200

    def sign_in(self) -> None:
        """A right password."""
        self._driver.sign_in(self._some, PASSWORD)

    def _users(self, path: str, who: Person | None = None) -> list[dict[str, Any]]:
        answer = self._driver.call("GET", path, who=who or self._driver.admin)
        found: list[dict[str, Any]] = answer.get_json()["data"]["users"]
        return found

    def _key_of_page(self, after: str) -> str:
        user = self._driver.app.extensions[EXTENSION].repository.user(after)
        key = next_key([user, user], 1, "created")
        assert key
        return key


CALLS: dict[str, Callable[[Deployment], None]] = {
    "list": Deployment.first_page,
    "list_middle": Deployment.middle_page,
    "list_own": Deployment.own_users,
    "by_name": Deployment.by_name,
    "authenticate": Deployment.authenticate,
    "sign_in": Deployment.sign_in,
}


def _batches(users: int, password_hash: str) -> Iterator[list[dict[str, Any]]]:
    began = now() - timedelta(days=1)
    for start in range(0, users, BATCH):
        yield [
            {
                "_id": f"user-{number}",
                "skeleton": f"user-{number}",
                "roles": [] if number else [DEFAULT_ROLE],
                "permissions": ["user:list", "inference:list"],
                "creator": "user-7" if number % (users // 50) == 0 else ADMIN,
                "created": began + timedelta(milliseconds=10 * number),
                "password_hash": password_hash,
                "version": "1",
            }
            for number in range(start, min(start + BATCH, users))
        ]


def alternate(one: Callable[[], None], other: Callable[[], None], rounds: int) -> tuple[float, float]:
    """Median milliseconds of both, called in turns."""
    for call in (one, other):
        call()
    pairs = [(_milliseconds(one), _milliseconds(other)) for _ in range(rounds)]
    return tuple(statistics.median(column) for column in zip(*pairs, strict=True))  # type: ignore[return-value]


def _milliseconds(call: Callable[[], None]) -> float:
    began = time.perf_counter()
    call()
    return (time.perf_counter() - began) * 1000
