"""The Ed25519 keys that sign tokens: made at first start, kept in MongoDB, rotated with overlap."""

import base64
import logging
import secrets
import threading
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from services.common.times import now
from services.users.credentials_repository import CredentialsRepository

log = logging.getLogger(__name__)

RING_SECONDS = 2.0
PUBLISHED_FIRST_SECONDS = 10  # services know a new key before anything is signed with it
UNKNOWN_KEY_PAUSE_SECONDS = 1.0  # tokens that name invented keys cost no more than one query a second
OVERLAP = timedelta(minutes=30)  # longer than any access token lives


@dataclass(frozen=True)
class SigningKey:
    """A private key and the `kid` that tokens name it by."""

    kid: str
    private: Ed25519PrivateKey
    created: datetime

    @property
    def public(self) -> Ed25519PublicKey:
        return self.private.public_key()

    def as_jwk(self) -> dict[str, str]:
        """The public half as a JSON Web Key (RFC 8037)."""
        x = base64.urlsafe_b64encode(self.public.public_bytes_raw()).rstrip(b"=").decode()
        return {"kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": self.kid, "x": x}


class KeyRing:
    """The deployment's signing keys, newest first, as MongoDB has them now."""

    def __init__(self, repository: CredentialsRepository) -> None:
        self._repository = repository
        self._keys: list[SigningKey] = []
        self._read_at = float("-inf")
        self._lock = threading.Lock()

    def ensure(self) -> None:
        """Make the first key; of two instances that start at once one wins, and both use its key."""
        if not self._repository.signing_keys():
            self._repository.add_signing_key(*_new_key(), number=1)

    def rotate(self, overlap: timedelta = OVERLAP) -> str:
        """Sign with a new key as soon as services know it; the older ones are believed for `overlap`."""
        number = self._repository.last_signing_key_number() + 1
        kid, private = _new_key()
        self._repository.add_signing_key(kid, private, number)
        self._repository.retire_signing_keys_before(number, now() + overlap)
        log.info("signing key rotated", extra={"kid": kid})
        return kid

    def newest(self) -> SigningKey:
        """The key to sign with: the newest, or an older one as long as services may not have heard of it."""
        keys = self._current()
        known_since = now() - timedelta(seconds=PUBLISHED_FIRST_SECONDS)
        return next((key for key in keys if key.created <= known_since), keys[-1])

    def published(self) -> list[dict[str, str]]:
        """The public keys that tokens may be signed with now."""
        return [key.as_jwk() for key in self._current()]

    def public_key(self, kid: str | None) -> Ed25519PublicKey:
        """The key that a token names. Raises jwt.InvalidKeyError when there is none."""
        key = _find(self._current(), kid)
        if key is None and time.monotonic() - self._read_at > UNKNOWN_KEY_PAUSE_SECONDS:
            key = _find(self._current(at_least_as_new_as=UNKNOWN_KEY_PAUSE_SECONDS), kid)
        if key is None:
            raise jwt.InvalidKeyError
        return key.public

    def get_signing_key_from_jwt(self, token: str) -> Ed25519PublicKey:
        """What services.common.identity asks of a source of keys."""
        return self.public_key(jwt.get_unverified_header(token).get("kid"))

    def _current(self, at_least_as_new_as: float = RING_SECONDS) -> list[SigningKey]:
        with self._lock:
            if time.monotonic() - self._read_at > at_least_as_new_as or not self._keys:
                self._keys = [_read(document) for document in self._repository.signing_keys()]
                self._read_at = time.monotonic()
            return self._keys


def _new_key() -> tuple[str, bytes]:
    return secrets.token_hex(8), Ed25519PrivateKey.generate().private_bytes_raw()


def _read(document: dict[str, Any]) -> SigningKey:
    return SigningKey(
        kid=document["_id"],
        private=Ed25519PrivateKey.from_private_bytes(document["private_key"]),
        created=document["created"],
    )


def _find(keys: list[SigningKey], kid: str | None) -> SigningKey | None:
    return next((key for key in keys if key.kid == kid), None)
