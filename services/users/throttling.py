"""Sign-ins that fail too often are refused for a while, whether the user exists or not."""

from datetime import timedelta
from ipaddress import ip_address, ip_network

from pymongo.errors import DuplicateKeyError

from services.common.times import now
from services.users.config import ThrottleSettings
from services.users.credentials_repository import CredentialsRepository
from services.users.errors import TooManyAttempts
from services.users.tokens import digest


class SignInThrottle:
    """Counts attempts before the password is looked at, so that a burst of guesses counts too."""

    def __init__(self, repository: CredentialsRepository, settings: ThrottleSettings) -> None:
        self._repository = repository
        self._settings = settings

    def begin(self, username: str, address: str) -> None:
        """Count an attempt. Raises TooManyAttempts when there were too many in the window."""
        limits = {
            self._pair(username, address): self._settings.failures_per_pair,
            self._user(username): self._settings.failures_per_user,
            self._address(address): self._settings.failures_per_address,
        }
        for counter, limit in limits.items():
            self._count(counter, limit)

    def succeeded(self, username: str, address: str) -> None:
        """A right password: the pair starts anew, and this attempt was no failure of the others."""
        self._repository.forget_attempts(
            [self._pair(username, address)], [self._user(username), self._address(address)]
        )

    def undone(self, username: str, address: str) -> None:
        """The password was not looked at: this attempt was none."""
        self._repository.forget_attempts(
            [], [self._pair(username, address), self._user(username), self._address(address)]
        )

    def _count(self, counter: str, limit: int) -> None:
        ends = now() + timedelta(seconds=self._settings.window_seconds)
        try:
            found = self._repository.count_attempt(counter, ends)
        except DuplicateKeyError:  # two first attempts at the same moment
            found = self._repository.count_attempt(counter, ends)
        if found["attempts"] > limit:
            raise TooManyAttempts(max(1, round((found["ends"] - now()).total_seconds())))

    def _pair(self, username: str, address: str) -> str:
        return "pair " + digest(f"{username}\0{_network(address)}")

    def _user(self, username: str) -> str:
        return "user " + digest(username)

    def _address(self, address: str) -> str:
        return "address " + digest(_network(address))


def _network(address: str) -> str:
    """Who has one IPv6 address has all of its /64, and is one address here."""
    try:
        found = ip_address(address)
    except ValueError:
        return address
    return str(ip_network((found, 64), strict=False)) if found.version == 6 else address
