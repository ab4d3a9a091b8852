"""Tokens of users on their way to the background work: sealed, and of no use after an hour.

They are in no record: work that has to be done again by a sweep has none.
"""

import base64
import hashlib

from cryptography.fernet import Fernet, InvalidToken

LIFE_SECONDS = 3600


def seal(token: str, secret: str) -> str:
    """The token as the broker may carry it."""
    return _fernet(secret).encrypt(token.encode()).decode()


def unseal(sealed: str, secret: str) -> str | None:
    """The token; None when it is too old."""
    try:
        return _fernet(secret).decrypt(sealed.encode(), ttl=LIFE_SECONDS).decode()
    except InvalidToken:
        return None


def _fernet(secret: str) -> Fernet:
    digest = hashlib.sha256(b"sdfleet import token\0" + secret.encode()).digest()
    return Fernet(base64.urlsafe_b64encode(digest))
