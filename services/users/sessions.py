"""Signing in and staying signed in: passwords and refresh tokens become access tokens."""

import uuid
from datetime import timedelta
from typing import Any

from services.common.errors import Unauthorized
from services.common.times import now
from services.users.credentials_repository import CredentialsRepository
from services.users.errors import TooManySignIns
from services.users.passwords import Passwords
from services.users.repository import Repository
from services.users.throttling import SignInThrottle
from services.users.tokens import Tokens, digest, new_refresh_token

Issued = dict[str, Any]


class Sessions:
    """A session is a family of refresh tokens, each usable once; whoever uses one twice ends it."""

    def __init__(
        self,
        repository: Repository,
        credentials: CredentialsRepository,
        passwords: Passwords,
        tokens: Tokens,
        throttle: SignInThrottle,
        refresh_days: int,
    ) -> None:
        self._repository = repository
        self._credentials = credentials
        self._passwords = passwords
        self._tokens = tokens
        self._throttle = throttle
        self._life = timedelta(days=refresh_days)

    def sign_in(self, username: str, password: str, address: str) -> Issued:
        """Tokens for a right password. Raises Unauthorized, TooManyAttempts, TooManySignIns."""
        user = self.check_password(username, password, address)
        session_id = uuid.uuid4().hex
        token, moment = new_refresh_token(), now()
        self._credentials.add_session(
            {
                "_id": session_id,
                "username": username,
                "version": user["version"],
                "created": moment,
                "expires_at": moment + self._life,
                "ended_at": None,
            },
            digest(token),
        )
        return self._issued(user, session_id, token)

    def check_password(self, username: str, password: str, address: str) -> dict[str, Any]:
        """The user whose password this is; the way for an unknown user is as long as for a known one."""
        self._throttle.begin(username, address)
        user = self._repository.user(username)
        try:
            is_right = self._passwords.right(password, user["password_hash"] if user else None)
        except TooManySignIns:
            self._throttle.undone(username, address)
            raise
        if not is_right or user is None:
            raise Unauthorized
        self._throttle.succeeded(username, address)
        if self._passwords.outdated(user["password_hash"]):
            self._repository.set_password(username, user["password_hash"], self._passwords.hash(password))
        return user

    def refresh(self, token: str) -> tuple[Issued, str]:
        """New tokens for a refresh token, and whose they are; one that was used before ends its family.

        Raises Unauthorized.
        """
        used = self._credentials.use_refresh_token(digest(token))
        if used is None:
            self.end(token)
            raise Unauthorized
        session = self._credentials.live_session(used["session"])
        user = self._repository.user(session["username"]) if session else None
        if session is None or user is None or user["version"] != session["version"]:
            raise Unauthorized
        fresh = new_refresh_token()
        self._credentials.add_refresh_token(digest(fresh), session["_id"], session["expires_at"])
        return self._issued(user, session["_id"], fresh), user["_id"]

    def end(self, token: str) -> bool:
        """End the family of a refresh token, used or not; False when the token is unknown."""
        session_id = self._credentials.session_of_refresh_token(digest(token))
        if session_id is None:
            return False
        self._credentials.end_session(session_id)
        return True

    def _issued(self, user: dict[str, Any], session_id: str, refresh_token: str) -> Issued:
        return {
            "access_token": self._tokens.access_token(user["_id"], user["version"], session_id),
            "token_type": "Bearer",
            "expires_in": self._tokens.access_seconds,
            "refresh_token": refresh_token,
        }
