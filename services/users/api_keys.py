"""Making API keys: a secret that is shown once, kept as a hash."""

import uuid
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
    repository: Repository, credentials: CredentialsRepository, caller_name: str, wanted: Document
) -> Document:
    """A key that the caller wants for an application or, bound, for a user who is not stronger."""
    caller = holder(repository, caller_name, "user:all")
    if wanted["username"] is not None:
        if DELEGATE in wanted["scopes"]:
            raise BoundAndDelegate
        check_may_act_as(repository, caller, wanted["username"])
    if DELEGATE in wanted["scopes"] and not caller.is_administrator:
        raise OnlyForAdministrators
    return _make(credentials, caller_name, wanted)


def make_own_key(
    repository: Repository,
    credentials: CredentialsRepository,
    username: str,
    wanted: Document,
    made_with: str | None,
) -> Document:
    """A key bound to the caller; no faster than the bound key it is made with."""
    holder(repository, username)
    if credentials.count_api_keys(username) >= MOST_OWN_KEYS:
        raise TooManyKeys
    limits = [wanted["rate_limit"], credentials.rate_limit_of_bound_key(made_with)]
    slowest = min((limit for limit in limits if limit), default=None)
    return _make(credentials, username, wanted | {"username": username, "scopes": [], "rate_limit": slowest})


def _make(credentials: CredentialsRepository, creator: str, wanted: Document) -> Document:
    secret = new_api_key()
    document = {
        "_id": str(uuid.uuid4()),
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
