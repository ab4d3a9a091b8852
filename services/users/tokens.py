"""Tokens: what clients and services carry, made and read."""

import hashlib
import secrets
import time
from dataclasses import dataclass
from typing import Any

import jwt

from services.common.identity import ISSUER, TOKEN_SECONDS, USER_AUDIENCE
from services.users.signing import KeyRing

CLIENT_AUDIENCE = "sdfleet"
API_KEY_PREFIX = "sdf_"
SHOWN_PREFIX_LENGTH = 8


@dataclass(frozen=True)
class AccessToken:
    """What a client's valid access token says."""

    username: str
    version: str
    session: str


def digest(secret: str) -> str:
    """How a random secret is kept: SHA-256 is enough for what cannot be guessed."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def new_api_key() -> str:
    """A new API key of 256 random bits."""
    return API_KEY_PREFIX + secrets.token_urlsafe(32)


def new_refresh_token() -> str:
    """A new opaque refresh token."""
    return secrets.token_urlsafe(32)


def new_version() -> str:
    """A user's version: tokens name it, and end with it."""
    return secrets.token_hex(8)


class Tokens:
    """Signs and reads the tokens that are signed with the deployment's keys."""

    def __init__(self, ring: KeyRing, access_seconds: int) -> None:
        self._ring = ring
        self.access_seconds = access_seconds

    def access_token(self, username: str, version: str, session: str) -> str:
        """A client's access token."""
        return self._sign(
            {
                "iss": ISSUER,
                "aud": CLIENT_AUDIENCE,
                "sub": username,
                "jti": secrets.token_hex(8),
                "ver": version,
                "sid": session,
            },
            self.access_seconds,
        )

    def read_access_token(self, token: str) -> AccessToken | None:
        """What a client's token says; None when anything about it is wrong."""
        try:
            key = self._ring.public_key(jwt.get_unverified_header(token).get("kid"))
            claims = jwt.decode(
                token,
                key,
                algorithms=["EdDSA"],
                audience=CLIENT_AUDIENCE,
                issuer=ISSUER,
                options={"require": ["exp", "iat", "aud", "iss", "sub", "jti", "ver", "sid"]},
            )
        except jwt.PyJWTError:
            return None
        said = claims["sub"], claims["ver"], claims["sid"]
        return AccessToken(*said) if all(isinstance(claim, str) for claim in said) else None

    def internal_token(self, claims: dict[str, Any]) -> str:
        """What the gateway hands to the services."""
        return self._sign({"iss": ISSUER, "aud": USER_AUDIENCE} | claims, TOKEN_SECONDS)

    def _sign(self, claims: dict[str, Any], seconds: int) -> str:
        key = self._ring.newest()
        began = int(time.time())
        return jwt.encode(
            claims | {"iat": began, "exp": began + seconds},
            key.private,
            algorithm="EdDSA",
            headers={"kid": key.kid},
        )
