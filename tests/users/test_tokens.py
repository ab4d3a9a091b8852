"""Signing in, staying signed in, and tokens that are not what they seem."""

import base64
import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from services.users import signing
from services.users.parts import EXTENSION, Parts
from tests.users.driver import ADMIN, ADMIN_PASSWORD, Driver, Person

FAR_FUTURE = 4_000_000_000  # epoch seconds: the year 2096


def parts_of(users: Driver) -> Parts:
    found: Parts = users.app.extensions[EXTENSION]
    return found


def claims_of(person: Person) -> dict[str, Any]:
    claims: dict[str, Any] = jwt.decode(person.token, options={"verify_signature": False})
    return claims


def forged(users: Driver, change: dict[str, Any], headers: dict[str, Any] | None = None) -> str:
    """A token with other claims, properly signed with the deployment's key."""
    key = parts_of(users).ring.newest()
    claims = {name: value for name, value in (claims_of(users.admin) | change).items() if value is not None}
    return jwt.encode(claims, key.private, algorithm="EdDSA", headers={"kid": key.kid} | (headers or {}))


def accepted(users: Driver, token: str) -> bool:
    answer = users.call("GET", "/users", token=token)
    assert answer.status_code in {200, 401}
    return answer.status_code == 200


def test_a_forged_token_with_the_right_claims_and_key_would_be_believed(users: Driver) -> None:
    assert accepted(users, forged(users, {}))  # so that the refusals below are for the reason they name


def test_a_token_names_issuer_audience_key_and_lives_fifteen_minutes(users: Driver) -> None:
    claims = claims_of(users.admin)
    assert (claims["iss"], claims["aud"], claims["sub"]) == ("sdfleet", "sdfleet", ADMIN)
    assert claims["exp"] - claims["iat"] == 900
    assert claims["jti"]
    header = jwt.get_unverified_header(users.admin.token)
    published = users.client.get("/.well-known/jwks.json").get_json()["keys"]
    assert header["alg"] == "EdDSA"
    assert header["kid"] in {key["kid"] for key in published}


def test_any_client_can_verify_a_token_with_the_published_keys(users: Driver) -> None:
    published = jwt.PyJWKSet.from_dict(users.client.get("/.well-known/jwks.json").get_json())
    kid = jwt.get_unverified_header(users.admin.token)["kid"]
    claims = jwt.decode(users.admin.token, published[kid], algorithms=["EdDSA"], audience="sdfleet")
    assert claims["sub"] == ADMIN


def test_alg_none_is_refused(users: Driver) -> None:
    def part(value: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    kid = jwt.get_unverified_header(users.admin.token)["kid"]
    unsigned = f"{part({'alg': 'none', 'typ': 'JWT', 'kid': kid})}.{part(claims_of(users.admin))}."
    assert not accepted(users, unsigned)
    assert not accepted(users, unsigned + users.admin.token.rsplit(".", 1)[1])


def test_hs256_signed_with_the_public_key_is_refused(users: Driver) -> None:
    key = parts_of(users).ring.newest()
    for secret in (
        key.public.public_bytes_raw(),
        key.public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        key.as_jwk()["x"].encode(),
    ):
        try:
            token = jwt.encode(claims_of(users.admin), secret, algorithm="HS256", headers={"kid": key.kid})
        except jwt.InvalidKeyError:  # PyJWT itself refuses PEM text as an HMAC secret
            continue
        assert not accepted(users, token)


def test_another_key_under_a_known_or_foreign_kid_is_refused(users: Driver) -> None:
    stranger = Ed25519PrivateKey.generate()
    known = parts_of(users).ring.newest().kid
    for kid in (known, "foreign", "", "../../dev/null", "' || 1 || '"):
        token = jwt.encode(claims_of(users.admin), stranger, algorithm="EdDSA", headers={"kid": kid})
        assert not accepted(users, token)
    assert not accepted(users, jwt.encode(claims_of(users.admin), stranger, algorithm="EdDSA"))


def test_a_key_inside_the_token_itself_is_not_believed(users: Driver) -> None:
    stranger = Ed25519PrivateKey.generate()
    x = base64.urlsafe_b64encode(stranger.public_key().public_bytes_raw()).rstrip(b"=").decode()
    jwk = {"kty": "OKP", "crv": "Ed25519", "x": x}
    headers = {"kid": parts_of(users).ring.newest().kid, "jwk": jwk, "jku": "http://127.0.0.1:1/jwks.json"}
    assert not accepted(users, jwt.encode(claims_of(users.admin), stranger, "EdDSA", headers=headers))


@pytest.mark.parametrize(
    "change",
    [
        {"exp": 1},
        {"nbf": FAR_FUTURE},
        {"iat": FAR_FUTURE},
        {"aud": "sdfleet-internal"},
        {"aud": "sdfleet-service"},
        {"aud": None},
        {"iss": "somebody"},
        {"exp": None},
        {"sub": None},
        {"sub": "nobody"},
        {"sub": {"$ne": None}},
        {"ver": "another"},
        {"ver": {"$ne": None}},
        {"ver": None},
        {"sid": "another"},
        {"sid": {"$ne": None}},
        {"jti": None},
    ],
    ids=str,
)
def test_a_signed_token_with_a_wrong_claim_is_refused(users: Driver, change: dict[str, Any]) -> None:
    assert not accepted(users, forged(users, change))


def test_an_internal_token_is_no_access_token_and_the_other_way_round(users: Driver) -> None:
    headers = {"x-api-key": "first-key-" + "0123456789abcdef" * 2}
    verdict = users.ask(headers | {"Authorization": f"Bearer {users.admin.token}"})
    assert not accepted(users, verdict.headers["X-Internal-Token"])
    answer = users.client.get("/users", headers={"X-Internal-Token": users.admin.token})
    assert answer.status_code == 401


def test_the_token_of_a_deleted_user_is_refused_also_when_the_name_is_given_again(users: Driver) -> None:
    gone = users.person()
    assert accepted(users, gone.token)
    users.call("DELETE", "/users", {"user_name_list": [gone.username]}, users.admin)
    assert not accepted(users, gone.token)
    body = {"username": gone.username, "password": "x", "roles": [users.role("inference:list")]}
    made = users.call("POST", "/users", body | {"creator": ADMIN}, users.admin)
    assert made.status_code == 201
    assert not accepted(users, gone.token)
    again = users.call("POST", "/auth/token", {"refresh_token": gone.refresh_token})
    assert again.status_code == 401


def test_a_wrong_password_and_an_unknown_user_get_the_same_answer(users: Driver) -> None:
    wrong = users.call("POST", "/auth/token", {"username": ADMIN, "password": "wrong"})
    unknown = users.call("POST", "/auth/token", {"username": "nobody", "password": "wrong"})
    assert wrong.status_code == unknown.status_code == 401
    assert wrong.data == unknown.data == b'{"statusCode":401,"message":"Unauthorized"}\n'


def test_an_unknown_user_costs_a_whole_password_check(users: Driver) -> None:
    passwords = parts_of(users).passwords
    checked: list[str] = []
    real = passwords._hasher.verify

    class Watching:
        def verify(self, kept: str, password: str) -> bool:
            checked.append(kept)
            return real(kept, password)

    hasher, passwords._hasher = passwords._hasher, Watching()  # type: ignore[assignment]
    try:
        users.call("POST", "/auth/token", {"username": "nobody", "password": "wrong"})
        users.call("POST", "/auth/token", {"username": ADMIN, "password": "wrong"})
    finally:
        passwords._hasher = hasher
    assert len(checked) == 2
    assert [kept.split("$")[3] for kept in checked] == ["m=64,t=1,p=1"] * 2


def test_tokens_stand_in_data_and_beside_it(users: Driver) -> None:
    answer = users.call("POST", "/auth/token", {"username": ADMIN, "password": ADMIN_PASSWORD})
    body = answer.get_json()
    assert set(body["data"]) == {"access_token", "token_type", "expires_in", "refresh_token"}
    assert (body["token_type"], body["expires_in"]) == ("Bearer", 900)
    assert body["access_token"] == body["data"]["access_token"]
    assert answer.headers["Cache-Control"] == "no-store"


def test_a_refresh_token_is_good_once_and_gives_the_next(users: Driver) -> None:
    person = users.person()
    first = users.call("POST", "/auth/token", {"refresh_token": person.refresh_token}).get_json()
    assert accepted(users, first["access_token"])
    second = users.call("POST", "/auth/token", {"refresh_token": first["refresh_token"]})
    assert second.status_code == 200


def test_a_replayed_refresh_token_ends_the_whole_family(users: Driver) -> None:
    person = users.person()
    fresh = users.call("POST", "/auth/token", {"refresh_token": person.refresh_token}).get_json()
    replayed = users.call("POST", "/auth/token", {"refresh_token": person.refresh_token})
    assert replayed.status_code == 401
    assert not accepted(users, fresh["access_token"])
    assert not accepted(users, person.token)
    assert users.call("POST", "/auth/token", {"refresh_token": fresh["refresh_token"]}).status_code == 401
    assert accepted(users, users.sign_in(person.username, person.password).token)


def test_of_many_refreshes_at_once_one_at_most_gets_tokens_that_last(users: Driver) -> None:
    person = users.person()

    def refresh(_: int) -> int:
        body = {"refresh_token": person.refresh_token}
        return users.call("POST", "/auth/token", body).status_code

    with ThreadPoolExecutor(6) as pool:
        statuses = list(pool.map(refresh, range(6)))
    assert statuses.count(200) <= 1
    assert statuses.count(401) >= 5


def test_revoking_a_refresh_token_ends_its_session_and_no_other(users: Driver) -> None:
    person = users.person()
    other = users.sign_in(person.username, person.password)
    answer = users.call("POST", "/auth/revoke", {"refresh_token": person.refresh_token}, person)
    assert answer.status_code == 200
    assert not accepted(users, person.token)
    assert accepted(users, other.token)


@pytest.mark.parametrize("value", ["", {"$ne": None}, ["x"], 7, None])
def test_a_refresh_token_that_is_no_text_is_a_bad_request(users: Driver, value: Any) -> None:
    assert users.call("POST", "/auth/token", {"refresh_token": value}).status_code == 400


@pytest.mark.parametrize("value", [{"$ne": ""}, {"$gt": ""}, ["admin"], 1, None, True])
def test_an_operator_object_where_a_name_or_password_belongs_is_a_bad_request(
    users: Driver, value: Any
) -> None:
    for body in ({"username": value, "password": "x"}, {"username": ADMIN, "password": value}):
        answer = users.call("POST", "/auth/token", body)
        assert answer.status_code == 400
        assert "does not match any allowed primitive type" in answer.get_json()["message"]


def test_missing_fields_are_named_sorted(users: Driver) -> None:
    answer = users.call("POST", "/auth/token", {})
    assert answer.get_json()["message"] == (
        'object has missing required properties (["password","username"])'
    )


def test_a_new_key_is_published_before_anything_is_signed_with_it(
    new_users: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signing, "PUBLISHED_FIRST_SECONDS", 1)
    kid = parts_of(new_users).ring.rotate()
    parts_of(new_users).ring._read_at = float("-inf")
    published = new_users.client.get("/.well-known/jwks.json").get_json()["keys"]
    assert kid in {key["kid"] for key in published}
    assert jwt.get_unverified_header(new_users.sign_in(ADMIN, ADMIN_PASSWORD).token)["kid"] != kid
    time.sleep(1)
    assert jwt.get_unverified_header(new_users.sign_in(ADMIN, ADMIN_PASSWORD).token)["kid"] == kid


def test_after_rotation_old_tokens_are_believed_and_new_ones_name_the_new_key(
    new_users: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signing, "PUBLISHED_FIRST_SECONDS", 0)
    old = new_users.admin
    kid = parts_of(new_users).ring.rotate()
    parts_of(new_users).ring._read_at = float("-inf")
    new = new_users.sign_in(ADMIN, ADMIN_PASSWORD)
    assert jwt.get_unverified_header(new.token)["kid"] == kid
    assert jwt.get_unverified_header(old.token)["kid"] != kid
    assert accepted(new_users, old.token)
    assert accepted(new_users, new.token)
    assert len(new_users.client.get("/.well-known/jwks.json").get_json()["keys"]) == 2


def test_another_instance_believes_a_new_key_before_its_ring_is_old(
    new_users: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signing, "PUBLISHED_FIRST_SECONDS", 0)
    other = Driver.of(parts_of(new_users).config)
    ring = parts_of(new_users).ring
    ring.rotate()
    ring._read_at = float("-inf")
    token = new_users.sign_in(ADMIN, ADMIN_PASSWORD).token
    parts_of(other).ring._read_at -= 1.5  # more than the pause between looks for unknown keys
    assert accepted(other, token)
