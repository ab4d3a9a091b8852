"""What the inference service counts and looks up for Prometheus."""

from collections.abc import Mapping
from typing import Any

from prometheus_client import Counter, Histogram

from services.common.looked_up import Gauge, LookedUp, Sample
from services.common.metrics import SLOW
from services.common.mongo import Documents
from services.common.times import now
from services.inference.records import WAITING, Job
from services.inference.states import Status

LOOK_MS = 3000

ENDED = Counter("sdfleet_jobs_ended", "Image jobs that are over", ["task_type", "status"])
ATTEMPTS = Counter("sdfleet_job_attempts", "Image jobs given to a worker", ["task_type"])
WAIT_SECONDS = Histogram(
    "sdfleet_job_wait_seconds",
    "From the start of an image job to its first attempt",
    ["task_type"],
    buckets=SLOW,
)
JOB_SECONDS = Histogram(
    "sdfleet_job_seconds", "From the start of an image job to its success", ["task_type"], buckets=SLOW
)
DELIVERIES = Counter(
    "sdfleet_webhook_deliveries",
    "Events sent to webhooks: delivered, waiting (sent again later), given up",
    ["outcome"],
)

JOBS = Gauge("sdfleet_queue_jobs", "Image jobs at an endpoint, queued or running", ("endpoint", "state"))
OLDEST = Gauge("sdfleet_queue_oldest_seconds", "How long the oldest waiting image job waits", ("endpoint",))


def attempted(job: Job) -> None:
    """A worker has the job."""
    ATTEMPTS.labels(job["task_type"]).inc()
    if job["attempt"] == 1:
        _observe(WAIT_SECONDS, job, "started_at")


def told(job: Job) -> None:
    """A job has changed: its end is counted."""
    status = Status(job["status"])
    if not status.is_final:
        return
    ENDED.labels(job["task_type"], str(status)).inc()
    if status == Status.SUCCEED:
        _observe(JOB_SECONDS, job, "completed_at")


def _observe(histogram: Histogram, job: Job, end: str) -> None:
    if job.get("queued_at") and job.get(end):
        histogram.labels(job["task_type"]).observe((job[end] - job["queued_at"]).total_seconds())


def lines(database: Documents) -> LookedUp:
    """How many jobs wait and run at each endpoint now, and since when: all replicas say the same."""

    def look() -> Mapping[str, list[Sample]]:
        groups = list(database["jobs"].aggregate(_PER_ENDPOINT, maxTimeMS=LOOK_MS, hint="in line"))
        current = now()
        queued = [group for group in groups if group["_id"]["status"] == Status.QUEUED]
        return {
            JOBS.name: [(_labels(group["_id"]), group["jobs"]) for group in groups],
            OLDEST.name: [
                ((group["_id"]["endpoint"],), max(0.0, (current - group["oldest"]).total_seconds()))
                for group in queued
            ],
        }

    return LookedUp((JOBS, OLDEST), look)


def _labels(group: Mapping[str, Any]) -> tuple[str, str]:
    return str(group["endpoint"]), str(group["status"])


# Only jobs that wait or run are looked at, however many have ended.
_PER_ENDPOINT: list[dict[str, Any]] = [
    {"$match": WAITING},
    {
        "$group": {
            "_id": {"endpoint": "$endpoint", "status": "$status"},
            "jobs": {"$sum": 1},
            "oldest": {"$min": "$queued_at"},
        }
    },
]
