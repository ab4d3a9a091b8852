"""Who gets in by which token."""

import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from services.common.errors import Unauthorized
from services.common.identity import (
    HEADER,
    SERVICE_AUDIENCE,
    USER_AUDIENCE,
    WORKER_AUDIENCE,
    Authentication,
    requires,
)
from tests.conftest import Keys


@pytest.fixture()
def authentication(keys: Keys) -> Authentication:
    return Authentication(keys, keys.service_secret, keys.worker_secret)


def claims(**changes: Any) -> dict[str, Any]:
    made = {"iss": "sdfleet", "aud": USER_AUDIENCE, "sub": "ann", "exp": time.time() + 60}
    return {name: value for name, value in (made | changes).items() if value is not None}


def test_a_users_token_tells_who_calls(authentication: Authentication, keys: Keys) -> None:
    caller = authentication.caller_of(keys.user("ann", permissions=("role:all",))[HEADER], USER_AUDIENCE)
    assert caller.name == "ann"
    assert caller.may("role:create")
    assert not caller.may("user:create")


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": SERVICE_AUDIENCE},
        {"aud": "sdfleet"},
        {"iss": "somebody"},
        {"exp": time.time() - 1},
        {"exp": None},
        {"nbf": time.time() + 600},
    ],
)
def test_a_token_with_wrong_claims_proves_nothing(
    authentication: Authentication, keys: Keys, changes: dict[str, Any]
) -> None:
    token = jwt.encode(claims(**changes), keys.private, algorithm="EdDSA")
    with pytest.raises(Unauthorized):
        authentication.caller_of(token, USER_AUDIENCE)


def test_a_token_of_another_key_or_algorithm_proves_nothing(
    authentication: Authentication, keys: Keys
) -> None:
    public = keys.private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    for token in (
        jwt.encode(claims(), Ed25519PrivateKey.generate(), algorithm="EdDSA"),
        jwt.encode(claims(), "", algorithm="none"),
        jwt.encode(claims(), public, algorithm="HS256"),
        jwt.encode(claims(), keys.service_secret, algorithm="HS256"),
        "",
        "x.y.z",
    ):
        with pytest.raises(Unauthorized):
            authentication.caller_of(token, USER_AUDIENCE)


def test_a_token_of_one_audience_is_nothing_to_another(authentication: Authentication, keys: Keys) -> None:
    tokens = {
        USER_AUDIENCE: keys.user()[HEADER],
        SERVICE_AUDIENCE: keys.service()[HEADER],
        WORKER_AUDIENCE: keys.worker()[HEADER],
    }
    for mine, token in tokens.items():
        assert authentication.caller_of(token, mine).audience == mine
        for other in set(tokens) - {mine}:
            with pytest.raises(Unauthorized):
                authentication.caller_of(token, other)


def test_a_token_that_was_good_once_expires(
    authentication: Authentication, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = keys.user()[HEADER]
    authentication.caller_of(token, USER_AUDIENCE)
    later = time.time() + 3600
    monkeypatch.setattr(time, "time", lambda: later)
    with pytest.raises(Unauthorized):
        authentication.caller_of(token, USER_AUDIENCE)


def test_a_permission_that_does_not_exist_cannot_be_asked_for() -> None:
    with pytest.raises(ValueError, match="no permission"):
        requires("inference:destroy")
