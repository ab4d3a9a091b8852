"""What the endpoints service's database needs before this version works with it."""

from services.common.migrations import Step, migrate
from services.common.mongo import Documents
from services.endpoints.repository import Endpoints
from services.endpoints.workers import Workers


def _on_workers(database: Documents) -> None:
    """Endpoints from before there was SageMaker are served by GPU workers."""
    database["endpoints"].update_many({"backend": {"$exists": False}}, {"$set": {"backend": "local"}})


STEPS = (Step("endpoints name their backend", _on_workers),)


def prepare(database: Documents) -> None:
    """Change old documents, then make or replace indexes; any number of processes may do so at once."""
    migrate(database, STEPS)
    Endpoints(database).ensure_indexes()
    Workers(database, lost_seconds=0).ensure_indexes()
