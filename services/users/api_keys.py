"""Making API keys: a secret that is shown once, kept as a hash."""

from typing import Any

from services.common.times import now
from services.users.authentication import DELEGATE
from services.users.credentials_repository import CredentialsRepository
from services.users.errors import BoundAndDelegate, OnlyForAdministrators, TooManyKeys
from services.users.granting import check_may_act_as, holder
from services.users.repository import Repository
from services.users.tokens import SHOWN_PREFIX_LENGTH, digest, new_api_key

MOST_OWN_KEYS = 100

Document = dict[str, Any]


def make_key(
    repository: Repository,
    credentials: CredentialsRepository,
    key_id: str,
    caller_name: str,
    wanted: Document,
) -> Document:
    """A key that the caller wants for an application or, bound, for a user who is not stronger."""
    caller = holder(repository, caller_name, "user:all")
    if wanted["username"] is not None:
        if DELEGATE in wanted["scopes"]:
            raise BoundAndDelegate
        check_may_act_as(repository, caller, wanted["username"])
    if DELEGATE in wanted["scopes"] and not caller.is_administrator:
        raise OnlyForAdministrators
    return _make(credentials, key_id, caller_name, wanted)


def make_own_key(
    repository: Repository,
    credentials: CredentialsRepository,
    key_id: str,
    username: str,
    wanted: Document,
    made_with: str | None,
) -> Document:
    """A key bound to the caller; no faster than the bound key it is made with, and good no longer."""
    holder(repository, username)
    if credentials.count_api_keys(username) >= MOST_OWN_KEYS:
        raise TooManyKeys
    maker = credentials.bound_key(made_with) or {"rate_limit": None, "expires_at": None}
    narrower = {
        name: min((bound for bound in (wanted[name], maker[name]) if bound), default=None)
        for name in ("rate_limit", "expires_at")
    }
    bound = wanted | {"username": username, "scopes": []} | narrower
    return _make(credentials, key_id, username, bound)


def _make(credentials: CredentialsRepository, key_id: str, creator: str, wanted: Document) -> Document:
    secret = new_api_key()
    document = {
        "_id": key_id,
        "hash": digest(secret),
        "prefix": secret[:SHOWN_PREFIX_LENGTH],
        "name": wanted["name"],
        "username": wanted["username"],
        "scopes": sorted(set(wanted["scopes"])),
        "rate_limit": wanted["rate_limit"],
        "expires_at": wanted["expires_at"],
        "creator": creator,
        "created": now(),
        "last_used_at": None,
    }
    credentials.add_api_key(document)
    return document | {"key": secret}
