"""What every change of a job's life works with: repositories, storage, bells and events."""

from dataclasses import dataclass

from services.common.bells import Bells
from services.common.events import JobEvents
from services.inference import metrics
from services.inference.attempts_repository import Attempts
from services.inference.fairness import FairShare
from services.inference.line_repository import Line
from services.inference.pace import Pace
from services.inference.quotas_repository import Quotas
from services.inference.records import Job
from services.inference.repository import Jobs
from services.inference.storage import JobStorage


@dataclass(frozen=True)
class Parts:
    """The truth (jobs, line, attempts, shares, pace, quotas), the objects, and those who are told."""

    jobs: Jobs
    line: Line
    attempts: Attempts
    shares: FairShare
    pace: Pace
    quotas: Quotas
    storage: JobStorage
    bells: Bells
    events: JobEvents

    def ring(self, job: Job) -> None:
        """Those who could take the job hear that it waits."""
        if job.get("backend") == "sagemaker":
            self.bells.submit(job["endpoint"])
        else:
            self.bells.ring(job["endpoint"])

    def tell(self, job: Job) -> None:
        """Those who wait for the job hear how it stands."""
        metrics.told(job)
        standing = {name: job.get(name) for name in ("status", "attempt", "progress")}
        self.events.publish(job["_id"], standing)
