"""A signing key that was given up (`rotate-keys --at-once`) is out at every service within ten seconds."""

import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import jwt
import pytest
from werkzeug.serving import make_server

from services.common import identity, resource_service
from services.common.errors import Unauthorized
from services.common.identity import USER_AUDIENCE, Authentication
from services.users import signing
from services.users.parts import EXTENSION
from tests.users.driver import Driver


@pytest.fixture()
def served(new_users: Driver) -> Iterator[str]:
    """The users service at an address."""
    server = make_server("127.0.0.1", 0, new_users.app, threaded=True)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def forge(users: Driver) -> str:
    """What a thief of the newest key makes with it: a token that lives for ever."""
    key = users.app.extensions[EXTENSION].ring.newest()
    claims = {"iss": "sdfleet", "aud": USER_AUDIENCE, "sub": "thief", "exp": time.time() + 10**9}
    return jwt.encode(claims, key.private, algorithm="EdDSA", headers={"kid": key.kid})


def accepts(authentication: Authentication, token: str) -> bool:
    try:
        authentication.caller_of(token, USER_AUDIENCE)
    except Unauthorized:
        return False
    return True


def test_what_remembers_keys_forgets_them_within_ten_seconds_altogether() -> None:
    remembered = signing.RING_SECONDS + resource_service.KEYS_KEPT_SECONDS + identity.VERIFIED_SECONDS
    assert remembered < 10
    assert signing.PUBLISHED_FIRST_SECONDS > signing.RING_SECONDS + resource_service.KEYS_KEPT_SECONDS


def test_a_token_of_a_revoked_key_is_refused_by_a_service_that_has_accepted_it(
    new_users: Driver, served: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signing, "RING_SECONDS", 0.2)
    monkeypatch.setattr(resource_service, "KEYS_KEPT_SECONDS", 0.3)
    monkeypatch.setattr(identity, "VERIFIED_SECONDS", 0.2)
    service = Authentication(resource_service.published_keys(served), "x" * 32)
    forged = forge(new_users)
    assert accepts(service, forged)
    new_users.app.extensions[EXTENSION].ring.rotate(timedelta(0))
    deadline = time.monotonic() + 5
    while accepts(service, forged):
        assert time.monotonic() < deadline
        accepts(service, forged)  # somebody who asks all the time does not keep it alive
        time.sleep(0.01)
    assert accepts(service, forge(new_users))


def test_tokens_that_name_invented_keys_cost_users_no_more_than_a_question_a_second(
    new_users: Driver, served: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    keys = resource_service.published_keys(served)
    fetch = keys.fetch_data
    monkeypatch.setattr(keys, "fetch_data", lambda: asked.append(0) or fetch())
    service = Authentication(keys, "x" * 32)
    private = signing.Ed25519PrivateKey.generate()
    claims = {"iss": "sdfleet", "aud": USER_AUDIENCE, "sub": "x", "exp": time.time() + 60}
    for number in range(200):
        assert not accepts(
            service, jwt.encode(claims, private, "EdDSA", headers={"kid": f"invented-{number}"})
        )
    assert len(asked) <= 3
    assert accepts(service, forge(new_users))
