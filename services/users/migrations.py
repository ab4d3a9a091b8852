"""What the users service's database needs before this version works with it."""

from services.common.mongo import Documents
from services.users.audit_log import AuditLog
from services.users.credentials_repository import CredentialsRepository
from services.users.repository import Repository


def prepare(database: Documents) -> None:
    """Make or replace indexes; any number of processes may do so at once."""
    Repository(database).prepare()
    CredentialsRepository(database).prepare()
    AuditLog(database).prepare()
