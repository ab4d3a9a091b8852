"""What the checkpoints service's database needs before this version works with it."""

from services.checkpoints.repository import Repository
from services.common.mongo import Documents


def prepare(database: Documents) -> None:
    """Make or replace indexes; any number of processes may do so at once."""
    Repository(database).ensure_indexes()
