"""Checking passwords is dear: what waits for it is bounded."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from argon2 import PasswordHasher

from tests.users.driver import ADMIN, ADMIN_PASSWORD, Driver, users_config


def test_sign_ins_beyond_the_line_come_again_and_are_no_failed_attempts(
    environment: Callable[..., dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = {
        "PASSWORD_HASHES_AT_ONCE": "1",
        "PASSWORD_HASHES_WAITING": "1",
        "SIGN_IN_FAILURES_PER_USER": "5",
    }
    users = Driver.of(users_config(environment(), **limits))
    held, let_go = threading.Semaphore(0), threading.Event()
    verify = PasswordHasher.verify

    def slow(self: PasswordHasher, *arguments: Any) -> bool:
        held.release()
        assert let_go.wait(30)
        return bool(verify(self, *arguments))

    monkeypatch.setattr(PasswordHasher, "verify", slow)

    def sign_in(_number: int) -> tuple[int, str]:
        answer = users.call("POST", "/auth/token", {"username": ADMIN, "password": ADMIN_PASSWORD})
        return answer.status_code, answer.headers.get("Retry-After", "")

    with ThreadPoolExecutor(5) as pool:
        first = pool.submit(sign_in, 0)
        assert held.acquire(timeout=30)
        others = [pool.submit(sign_in, number) for number in range(4)]
        refused = []
        while len(refused) < 3:  # one waits, whichever came first
            refused = [one.result() for one in others if one.done()]
        assert refused == [(503, "2")] * 3
        let_go.set()
        assert first.result()[0] == 200
    assert sorted(one.result()[0] for one in others) == [200, 503, 503, 503]
    # None of the three refusals counted as a guess.
    monkeypatch.undo()
    wrong = {"username": ADMIN, "password": "wrong"}
    statuses = [users.call("POST", "/auth/token", wrong).status_code for _ in range(6)]
    assert statuses == [401] * 5 + [429]
