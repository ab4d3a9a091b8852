"""What a new deployment begins with: the first administrator and the first API key."""

import logging
import uuid

from pymongo.errors import DuplicateKeyError

from services.common.settings import SettingsError
from services.common.times import now
from services.users.config import FirstStartSettings
from services.users.credentials_repository import CredentialsRepository
from services.users.names import skeleton
from services.users.passwords import Passwords
from services.users.repository import DEFAULT_ROLE, Repository
from services.users.tokens import SHOWN_PREFIX_LENGTH, digest, new_version

log = logging.getLogger(__name__)

SHORTEST_API_KEY = 20


def write_first_administrator(
    settings: FirstStartSettings,
    repository: Repository,
    credentials: CredentialsRepository,
    passwords: Passwords,
) -> None:
    """Write them when there are none yet; several instances may do this at once."""
    if settings.password and not repository.any_user():
        secrets = {"password_hash": passwords.hash(settings.password), "version": new_version()}
        repository.exclusively(lambda inside: _add_administrator(inside, settings.username, secrets))
    if settings.api_key and not credentials.any_api_key():
        if len(settings.api_key) < SHORTEST_API_KEY:
            raise SettingsError(f"ADMIN_API_KEY needs at least {SHORTEST_API_KEY} characters")
        _add_first_key(credentials, settings.api_key)


def reset_administrator(username: str, password: str, repository: Repository, passwords: Passwords) -> None:
    """Give an administrator a new password and the default role; makes the user when it is missing."""
    secrets = {"password_hash": passwords.hash(password), "version": new_version()}
    repository.exclusively(lambda inside: _put_administrator(inside, username, secrets))


def _add_administrator(repository: Repository, username: str, secrets: dict[str, str]) -> None:
    if repository.any_user():
        return
    _put_administrator(repository, username, secrets)
    log.info("first administrator written", extra={"username": username})


def _put_administrator(repository: Repository, username: str, secrets: dict[str, str]) -> None:
    existing = repository.user(username) or {}
    roles = existing.get("roles", [])
    repository.put_user(
        {
            "_id": username,
            "skeleton": skeleton(username),
            "roles": roles if DEFAULT_ROLE in roles else [*roles, DEFAULT_ROLE],
            "permissions": existing.get("permissions", []),
            "creator": existing.get("creator", username),
            "created": existing.get("created", now()),
        }
        | secrets
    )
    repository.end_sessions(username)


def _add_first_key(credentials: CredentialsRepository, secret: str) -> None:
    key_hash = digest(secret)
    try:
        credentials.add_api_key(
            {
                "_id": str(uuid.uuid5(uuid.NAMESPACE_OID, key_hash)),
                "hash": key_hash,
                "prefix": secret[:SHOWN_PREFIX_LENGTH],
                "name": "first key",
                "username": None,
                "scopes": [],
                "rate_limit": None,
                "expires_at": None,
                "creator": "",
                "created": now(),
                "last_used_at": None,
            }
        )
        log.info("first API key written")
    except DuplicateKeyError:  # another instance was faster
        return
