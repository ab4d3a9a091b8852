"""Who is this? The gateway asks for every request; answers are kept for a few seconds."""

import hashlib
import json
import threading
import time
from base64 import urlsafe_b64decode
from collections import OrderedDict
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple

from services.common.times import now
from services.users.credentials_repository import CredentialsRepository
from services.users.repository import Repository
from services.users.tokens import Tokens, digest

CACHE_SIZE = 20_000
DELEGATE = "delegate"
LAST_USE_EVERY = timedelta(minutes=1)

Document = dict[str, Any]


class Presented(NamedTuple):
    """The credentials of a request, as they came."""

    api_key: str
    authorization: str
    username: str

    def digest(self) -> bytes:
        """What the cache knows them by."""
        return hashlib.sha256("\0".join(self).encode("utf-8", "surrogateescape")).digest()


@dataclass(frozen=True)
class Verdict:
    """200 with an internal token, 401 or 403."""

    status: int
    token: str | None = None


NO_KEY = Verdict(403)
NO_IDENTITY = Verdict(401)


class VerdictCache:
    """Verdicts of the last seconds under a hash of the credentials; the oldest go first."""

    def __init__(self, seconds: float, size: int = CACHE_SIZE) -> None:
        self._seconds, self._size = seconds, size
        self._kept: OrderedDict[tuple[bool, bytes], tuple[float, Verdict]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: tuple[bool, bytes]) -> Verdict | None:
        found = self._kept.get(key)
        return found[1] if found and found[0] > time.monotonic() else None

    def put(self, key: tuple[bool, bytes], verdict: Verdict) -> None:
        with self._lock:
            self._kept[key] = (time.monotonic() + self._seconds, verdict)
            self._kept.move_to_end(key)
            while len(self._kept) > self._size:
                self._kept.popitem(last=False)


class Authenticator:
    """Judges credentials: the API key first, then who stands behind it."""

    def __init__(
        self,
        repository: Repository,
        credentials: CredentialsRepository,
        tokens: Tokens,
        cache_seconds: float,
    ) -> None:
        self._repository = repository
        self._credentials = credentials
        self._tokens = tokens
        self._cache = VerdictCache(cache_seconds)

    def judge(self, presented: Presented, identity_needed: bool = True) -> Verdict:
        """The verdict on a request's credentials, at most a few seconds old."""
        verdict = self.remembered(presented, identity_needed)
        if verdict is None:
            verdict = self._judge(presented, identity_needed)
            self._cache.put((identity_needed, presented.digest()), verdict)
        return verdict

    def remembered(self, presented: Presented, identity_needed: bool = True) -> Verdict | None:
        """The verdict when one was given in the last seconds."""
        return self._cache.get((identity_needed, presented.digest()))

    def _judge(self, presented: Presented, identity_needed: bool) -> Verdict:
        key = self._credentials.api_key_by_hash(digest(presented.api_key)) if presented.api_key else None
        if key is None:
            return NO_KEY
        self._credentials.note_use(key["_id"], now(), not_before=now() - LAST_USE_EVERY)
        claims = {"key_id": key["_id"], "key_scopes": key["scopes"], "rate_limit": key["rate_limit"]}
        if not identity_needed:
            return Verdict(200, self._tokens.internal_token(claims | {"sub": None}))
        user = self._user_behind(key, presented)
        if user is None:
            return NO_IDENTITY
        permissions = self._repository.permissions_of([user])[user["_id"]]
        claims |= {"sub": user["_id"], "roles": user["roles"], "permissions": sorted(permissions)}
        return Verdict(200, self._tokens.internal_token(claims))

    def _user_behind(self, key: Document, presented: Presented) -> Document | None:
        scheme, _, offered = presented.authorization.strip().rpartition(" ")
        if looks_like_a_jwt(offered):
            user = self._user_of_token(offered) if scheme.strip().lower() == "bearer" else None
            other = user and key["username"] not in {None, user["_id"]}
            return None if other else user
        if key["username"] is not None:
            return self._repository.user(key["username"])
        if DELEGATE in key["scopes"] and presented.username:
            return self._repository.user(as_utf8(presented.username))
        return None

    def _user_of_token(self, token: str) -> Document | None:
        """The user of a valid token whose session lives and whose password has not changed since."""
        said = self._tokens.read_access_token(token)
        if said is None or self._credentials.live_session(said.session, said.username) is None:
            return None
        user = self._repository.user(said.username)
        return user if user and user["version"] == said.version else None


def looks_like_a_jwt(text: str) -> bool:
    """Whether this is meant as a token: three parts, of which the first is a JSON object in base64."""
    parts = text.split(".")
    if len(parts) != 3:
        return False
    try:
        header = json.loads(urlsafe_b64decode(parts[0] + "=" * (-len(parts[0]) % 4)))
    except (ValueError, RecursionError):
        return False
    return isinstance(header, dict)


def as_utf8(header: str) -> str:
    """A header's text: WSGI hands over bytes as Latin-1, clients mean UTF-8."""
    try:
        return header.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return header
