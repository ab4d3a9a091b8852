"""Passwords: argon2id hashes, a bounded number of them at once."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from services.users.config import PasswordSettings
from services.users.errors import PasswordTooShort, TooManySignIns


class Passwords:
    """Hashes and checks passwords; checking takes as long for a user who does not exist."""

    def __init__(self, settings: PasswordSettings) -> None:
        self._hasher = PasswordHasher(
            time_cost=settings.rounds, memory_cost=settings.memory_kib, parallelism=settings.lanes
        )
        self._room = threading.BoundedSemaphore(settings.at_once)
        # Whoever waits holds a thread of the service, which answers "who is this?" for every request.
        self._line = threading.BoundedSemaphore(settings.at_once + settings.waiting)
        self._nobodys = self._hasher.hash("the password of nobody")

    def hash(self, password: str) -> str:
        """The argon2id hash of a password, with its salt and parameters. Raises TooManySignIns."""
        with self._turn():
            return self._hasher.hash(password)

    def right(self, password: str, kept: str | None) -> bool:
        """Whether `password` has the hash `kept`; None stands for a user who does not exist.

        Raises TooManySignIns when so many wait already that this one must come again.
        """
        with self._turn():
            try:
                self._hasher.verify(kept or self._nobodys, password)
            except (VerificationError, InvalidHashError):
                return False
        return kept is not None

    @contextmanager
    def _turn(self) -> Iterator[None]:
        if not self._line.acquire(blocking=False):
            raise TooManySignIns
        try:
            with self._room:
                yield
        finally:
            self._line.release()

    def outdated(self, kept: str) -> bool:
        """Whether a hash was made with other parameters than today's."""
        return self._hasher.check_needs_rehash(kept)


def check_length(password: str, settings: PasswordSettings) -> None:
    """Raise PasswordTooShort when a new password is shorter than the deployment wants."""
    if len(password) < settings.minimum_length:
        raise PasswordTooShort(settings.minimum_length)
