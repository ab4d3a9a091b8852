"""What the routes work with, made once per application."""

from dataclasses import dataclass
from typing import cast

from flask import current_app

from services.common.service_client import ServiceClient
from services.users.audit_log import AuditLog
from services.users.authentication import Authenticator
from services.users.config import Config
from services.users.credentials_repository import CredentialsRepository
from services.users.openapi import WholeApi
from services.users.passwords import Passwords
from services.users.repository import Repository
from services.users.sessions import Sessions
from services.users.signing import KeyRing

EXTENSION = "sdfleet-users"


@dataclass(frozen=True)
class Parts:
    """The parts of one users service."""

    config: Config
    repository: Repository
    credentials: CredentialsRepository
    ring: KeyRing
    passwords: Passwords
    authenticator: Authenticator
    sessions: Sessions
    audit_log: AuditLog
    whole_api: WholeApi
    inference: ServiceClient | None  # None: the deployment has none


def parts() -> Parts:
    """The parts of the application that serves the current request."""
    return cast(Parts, current_app.extensions[EXTENSION])
