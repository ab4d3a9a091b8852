"""What the data sets' service's database needs before this version works with it."""

from services.common.mongo import Documents
from services.datasets.repository import Repository


def prepare(database: Documents) -> None:
    """Make or replace indexes; any number of processes may do so at once."""
    Repository(database).ensure_indexes()
