"""What the training service's database needs before this version works with it."""

from services.common.mongo import Documents
from services.training.model_repository import ModelRepository
from services.training.repository import WorkRepository


def prepare(database: Documents) -> None:
    """Make or replace indexes; any number of processes may do so at once."""
    WorkRepository(database).ensure_indexes()
    ModelRepository(database).ensure_indexes()
