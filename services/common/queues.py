"""Celery: one queue per service, periodic work, and bells that wake GPU workers."""

import os
from typing import Any

from celery import Celery
from kombu import Exchange, Queue

from services.common.alive import Alive
from services.common.task_metrics import count_tasks
from services.common.tracing import trace_tasks

# Periodic work: task name -> (queue, every so many seconds). Beat knows tasks by name only.
PERIODIC = {
    "inference.requeue_expired_leases": ("inference", 2.0),
    "inference.sweep_deleted": ("inference", 30.0),
    "inference.submit_to_sagemaker": ("inference", 2.0),
    "inference.pick_up_from_sagemaker": ("inference", 2.0),
    "inference.delete_outlived": ("inference", 60.0),
    "inference.announce_ends": ("inference", 1.0),
    "endpoints.reconcile": ("endpoints", 2.0),
    "endpoints.synchronise": ("endpoints", 5.0),
    "checkpoints.go_on": ("checkpoints", 15.0),
    "checkpoints.abort_stalled_uploads": ("checkpoints", 300.0),
    "datasets.go_on": ("datasets", 15.0),
    "training.go_on": ("training", 2.0),
    "training.follow_sagemaker": ("training", 5.0),
}
SERVICE_QUEUES = ("checkpoints", "endpoints", "inference", "datasets", "training")


def make_celery(name: str, queue: str | None = None, broker_url: str | None = None) -> Celery:
    """A Celery application on the deployment's Redis; `queue` is the one that its workers read.

    Without `broker_url` it is read from REDIS_URL when the application is first used, not at import.
    """
    app = Celery(f"sdfleet-{name}", set_as_current=False)
    app.steps["consumer"].add(Alive)
    app.add_defaults(lambda: _configuration(queue, broker_url or os.environ["REDIS_URL"]))
    if queue:
        count_tasks()
        trace_tasks(queue)
    return app


def _configuration(queue: str | None, broker_url: str) -> dict[str, Any]:
    return {
        "broker_url": broker_url,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_transport_options": {
            "socket_timeout": 10,
            "socket_connect_timeout": 3,
            "socket_keepalive": True,
        },
        "task_ignore_result": True,
        "task_serializer": "json",
        "accept_content": ["json"],
        "task_default_queue": queue or "none",
        "task_queues": [Queue(queue)] if queue else None,
        "task_create_missing_queues": queue is None,
        "task_acks_late": True,
        "worker_prefetch_multiplier": 1,
        "worker_hijack_root_logger": False,
        "worker_send_task_events": False,
        "beat_schedule": {
            task: {
                "task": task,
                "schedule": seconds,
                # Not run in time: the next one will do, they never pile up.
                "options": {"queue": where, "expires": seconds},
            }
            for task, (where, seconds) in PERIODIC.items()
        },
        "beat_max_loop_interval": 2,
    }


BELLS = Exchange("bells", type="fanout", durable=False)
