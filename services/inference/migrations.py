"""What the inference service's database needs before this version works with it."""

from services.common.migrations import Step, migrate
from services.common.mongo import Documents
from services.inference.fairness import FairShare
from services.inference.pace import Pace
from services.inference.quotas_repository import Quotas
from services.inference.records import JobRecords
from services.inference.sagemaker.repository import Invocations
from services.inference.states import Status
from services.inference.webhook_records import DeliveryRecords, WebhookRecords


def _on_workers(database: Documents) -> None:
    """Jobs from before there was SageMaker are for GPU workers."""
    database["jobs"].update_many({"backend": {"$exists": False}}, {"$set": {"backend": "local"}})


def _with_priority(database: Documents) -> None:
    """Waiting jobs from before there were priorities have none; their turn was their rank."""
    waiting = {"status": {"$in": [Status.CREATED, Status.QUEUED, Status.RUNNING]}}
    database["jobs"].update_many(waiting | {"priority": {"$exists": False}}, {"$set": {"priority": 0}})
    database["jobs"].update_many(waiting | {"overtaken": {"$exists": False}}, {"$set": {"overtaken": 0}})
    queued = {"status": {"$in": [Status.QUEUED, Status.RUNNING]}, "rank": {"$exists": False}}
    database["jobs"].update_many(queued, {"$set": {"rank": 0}})


STEPS = (
    Step("jobs name their backend", _on_workers),
    Step("waiting jobs have a priority", _with_priority),
)


def prepare(database: Documents) -> None:
    """Change old documents, then make or replace indexes; any number of processes may do so at once."""
    migrate(database, STEPS)
    for records in (
        JobRecords(database),
        FairShare(database),
        Invocations(database),
        Pace(database),
        Quotas(database),
        WebhookRecords(database),
        DeliveryRecords(database),
    ):
        records.ensure_indexes()
