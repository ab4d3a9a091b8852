"""Passwords: argon2id hashes, a bounded number of them at once."""

import threading

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from services.users.config import PasswordSettings
from services.users.errors import PasswordTooShort


class Passwords:
    """Hashes and checks passwords; checking takes as long for a user who does not exist."""

    def __init__(self, settings: PasswordSettings) -> None:
        self._hasher = PasswordHasher(
            time_cost=settings.rounds, memory_cost=settings.memory_kib, parallelism=settings.lanes
        )
        self._room = threading.BoundedSemaphore(settings.at_once)
        self._nobodys = self._hasher.hash("the password of nobody")

    def hash(self, password: str) -> str:
        """The argon2id hash of a password, with its salt and parameters."""
        with self._room:
            return self._hasher.hash(password)

    def right(self, password: str, kept: str | None) -> bool:
        """Whether `password` has the hash `kept`; None stands for a user who does not exist."""
        with self._room:
            try:
                self._hasher.verify(kept or self._nobodys, password)
            except (VerificationError, InvalidHashError):
                return False
        return kept is not None

    def outdated(self, kept: str) -> bool:
        """Whether a hash was made with other parameters than today's."""
        return self._hasher.check_needs_rehash(kept)


def check_length(password: str, settings: PasswordSettings) -> None:
    """Raise PasswordTooShort when a new password is shorter than the deployment wants."""
    if len(password) < settings.minimum_length:
        raise PasswordTooShort(settings.minimum_length)
