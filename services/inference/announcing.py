"""Announcing the ends of jobs: deliveries are made of the jobs' own records, and sent until they arrive.

A job that somebody listens to is marked at its creation. Its end and the mark together are the outbox: no
process has to live between a change of state and its announcement.
"""

import random
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from datetime import timedelta
from typing import Any

from services.common import tracing
from services.common.times import as_text, now
from services.inference import metrics
from services.inference.records import Job
from services.inference.repository import Jobs
from services.inference.sending import LONGEST_ATTEMPT_SECONDS, Attempt, Sender
from services.inference.states import shown
from services.inference.webhook_records import (
    DELIVERED,
    GIVEN_UP,
    WAITING,
    Delivery,
    DeliveryRecords,
    WebhookRecords,
)

TURN = "announcing"
TURN_SECONDS = 60.0
ROUND_SECONDS = 20.0
AT_ONCE = 16
USERS_LOOKED_AT = 200
LOOK_SECONDS = 0.5  # for what falls due while all that was sent is waited for
AT_ONCE_PER_USER = 4  # one user's slow receiver does not hold up the others
LEASE_SECONDS = 2 * LONGEST_ATTEMPT_SECONDS
LONGEST_PAUSE_SECONDS = 3600.0
PAUSE_FACTOR = 4


class Announcing:
    """One round of it; rounds follow one another, one at a time however many processes there are."""

    def __init__(
        self,
        jobs: Jobs,
        webhooks: WebhookRecords,
        deliveries: DeliveryRecords,
        sender: Sender,
        first_pause: float,
        most_attempts: int,
    ) -> None:
        self._jobs = jobs
        self._webhooks = webhooks
        self._deliveries = deliveries
        self._sender = sender
        self._first_pause = first_pause
        self._most_attempts = most_attempts

    def run(self) -> int:
        """Make the deliveries of jobs that have ended, and send those that are due; how many were sent."""
        if not self._deliveries.take_turn(TURN, TURN_SECONDS):
            return 0
        try:
            for job in self._jobs.unannounced():
                self.announce(job)
            return self._send_due()
        finally:
            self._deliveries.end_turn(TURN)

    def announce(self, job: Job) -> None:
        """Make the deliveries of a job's end; made twice they are the same ones."""
        for webhook_id in job.get("webhooks", ()):
            self._add(job, webhook_id, {"webhook_id": webhook_id})
        if own := job.get("webhook"):
            self._add(job, "job", {"webhook_id": None, "url": own["url"], "secret": own["secret"]})
        self._jobs.announced(job["_id"])

    def _add(self, job: Job, listener: str, to: dict[str, Any]) -> None:
        status = shown(job["status"])
        event_id = f"{job['_id']}.{status}.{listener}"
        delivery = {
            "_id": event_id,
            "job_id": job["_id"],
            "user": job["user"],
            "event": status,
            "traceparent": job.get("traceparent"),
            "body": {
                "id": event_id,
                "type": f"inference.{status}",
                "timestamp": job["completed_at"].isoformat(),
                "data": {
                    "inference_id": job["_id"],
                    "status": status,
                    "task_type": job["task_type"],
                    "user_id": job["user"],
                    "image_names": job.get("image_names", []),
                    "error": job.get("error"),
                    "completeTime": as_text(job["completed_at"]),
                },
            },
        }
        self._deliveries.add(delivery | to)

    def _send_due(self) -> int:
        """Send for a while; who answers slowly holds up nobody else's events."""
        end = now() + timedelta(seconds=ROUND_SECONDS)
        sent, under_way = 0, dict[Future[int], str]()
        with ThreadPoolExecutor(AT_ONCE) as threads:
            while True:
                chosen = self._choose(Counter(under_way.values())) if now() < end else []
                under_way |= {threads.submit(self._attempt, one): one["user"] for one in chosen}
                if not under_way:
                    return sent
                for one in wait(under_way, LOOK_SECONDS, FIRST_COMPLETED).done:
                    del under_way[one]
                    sent += one.result()

    def _choose(self, busy: Counter[str]) -> list[Delivery]:
        """What is sent next, claimed; of each user only a few at a time, whoever has most to tell."""
        room, chosen = AT_ONCE - busy.total(), list[Delivery]()
        if room <= 0:
            return chosen
        users = self._deliveries.users()
        for user in random.sample(users, min(len(users), USERS_LOOKED_AT)):
            few = min(AT_ONCE_PER_USER - busy[user], room - len(chosen))
            if few > 0:
                due = self._deliveries.due(user, few)
                chosen += [one for one in due if self._deliveries.claim(one, LEASE_SECONDS)]
        return chosen

    def _attempt(self, delivery: Delivery) -> int:
        target = self._target(delivery)
        if target is None:
            self._deliveries.note(delivery["_id"], _entry(Attempt(error="nobody listens")), GIVEN_UP, None)
            return 0
        url, secret = target
        with tracing.span("webhook", delivery.get("traceparent"), job_id=delivery["job_id"]):
            attempt = self._sender.send(url, secret, delivery["_id"], delivery["body"])
            tracing.note(outcome=attempt.status or "no answer", attempt=delivery["attempts"] + 1)
        self._note(delivery, attempt)
        return 1

    def _target(self, delivery: Delivery) -> tuple[str, str] | None:
        """Where to and signed by what; None when the webhook is gone, is off, or does not want this."""
        if delivery["webhook_id"] is None:
            return delivery["url"], delivery["secret"]
        webhook = self._webhooks.find(delivery["webhook_id"], delivery["user"])
        if webhook is None or not webhook["active"] or delivery["event"] not in webhook["events"]:
            return None
        return webhook["url"], webhook["secret"]

    def _note(self, delivery: Delivery, attempt: Attempt) -> None:
        tries, due_at = delivery["attempts"] + 1, None
        if attempt.arrived:
            state = DELIVERED
        elif attempt.gone or tries >= self._most_attempts:
            state = GIVEN_UP
        else:
            state = WAITING
            pause = min(self._first_pause * PAUSE_FACTOR ** (tries - 1), LONGEST_PAUSE_SECONDS)
            due_at = now() + timedelta(seconds=pause)
        self._deliveries.note(delivery["_id"], _entry(attempt), state, due_at)
        metrics.DELIVERIES.labels(state).inc()


def _entry(attempt: Attempt) -> dict[str, Any]:
    return {"at": now(), "status": attempt.status, "error": attempt.error, "ms": attempt.ms}
