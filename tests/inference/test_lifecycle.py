"""The life of jobs against a model: random interleavings of clients and workers on a real MongoDB and S3.

What must hold after every step: every job is where the model says, its history is a chain of legal changes,
at most one result was taken, and what waits is claimed by whoever has room. `make test` takes some thousand
steps, the slow test (or LIFECYCLE_EXAMPLES) many more.
"""

import json
import os
import threading
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from services.inference.context import Context
from services.inference.errors import AlreadyFinished, AttemptOver, TooManyWaiting
from services.inference.limits import LimitTable
from services.inference.running import JobRunning
from services.inference.starting import JobStart
from services.inference.states import Status
from tests.inference.conftest import SHAPES, Service

LEGAL = {
    None: {"created"},
    "created": {"queued", "cancelled", "deleted"},
    "queued": {"running", "cancelled", "deleted"},
    "running": {"queued", "succeed", "failed", "cancelled", "deleted"},
    "succeed": {"deleted"},
    "failed": {"deleted"},
    "cancelled": {"deleted"},
    "deleted": set(),
}
USERS, WORKERS = ("ann", "ben", "cem"), ("w1", "w2", "w3")
WAITING, RUNNING, ATTEMPTS = 6, 3, 3
LIMITS = LimitTable.parse(json.dumps({"default": {"waiting": WAITING, "running": RUNNING}}))
STEPS = Counter[str]()

users, workers, which = st.sampled_from(USERS), st.sampled_from(WORKERS), st.integers(0, 10_000)


@dataclass
class Expected:
    """What the model knows of a job."""

    user: str
    status: str = "created"
    attempt: int = 0
    failures: int = 0
    holder: str | None = None
    results: list[tuple[str, int]] = field(default_factory=list)


class Lifecycle(RuleBasedStateMachine):
    """Clients and workers do whatever comes to their minds, in any order, late or twice.

    No precondition asks how jobs stand: that depends on who was quicker, and hypothesis repeats its choices.
    """

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.context = context
        for name in ("jobs", "shares", "spent", "guards"):
            context.database[name].delete_many({})
        self.running = JobRunning(context, 3600, ATTEMPTS, LIMITS.limits_running)
        self.starting = JobStart(context, LIMITS, 1)
        self.endpoint = f"endpoint-{uuid.uuid4().hex[:6]}"
        self.jobs: dict[str, Expected] = {}
        self.handles: list[tuple[str, str, int]] = []  # every attempt that was ever handed out

    # clients

    @initialize(counts=st.tuples(*[st.integers(1, 4)] * len(USERS)))
    def some_wait(self, counts: tuple[int, ...]) -> None:
        for user, count in zip(USERS, counts, strict=True):
            self.create(user, 0, "c1", count, start=True)

    @rule(
        user=users,
        priority=st.integers(-2, 2),
        checkpoint=st.sampled_from(("c1", "c2")),
        count=st.integers(1, 4),
        start=st.sampled_from((False, True, False)),
    )
    def create_some(self, user: str, priority: int, checkpoint: str, count: int, start: bool) -> None:
        self.create(user, priority, checkpoint, count, start)

    def create(self, user: str, priority: int, checkpoint: str, count: int, start: bool) -> None:
        for _ in range(count):
            job_id = str(uuid.uuid4())
            job = {
                "_id": job_id,
                "user": user,
                "roles": [],
                "task_type": "txt2img",
                "inference_type": "Async",
                "endpoint": self.endpoint,
                "models": [SHAPES | {"id": checkpoint}],
                "priority": priority,
            }
            self.context.jobs.add(job)
            self.context.storage.write_parameters(job, '{"width": 64, "height": 64}')
            self.jobs[job_id] = Expected(user)
            STEPS["create"] += 1
            if start:
                self._start_one(job_id)

    @precondition(lambda self: self.jobs)
    @rule(which=which)
    def start(self, which: int) -> None:
        self._start_one(self._pick(which)[0])

    def _start_one(self, job_id: str) -> None:
        expected = self.jobs[job_id]
        outcome = self._start(job_id)
        if expected.status == "created":
            full = self._count(expected.user, "queued") >= WAITING
            assert outcome == ("refused" if full else "started")
            expected.status = "created" if full else "queued"
        else:
            assert outcome == {"deleted": "absent", "cancelled": "over"}.get(expected.status, "started")
        STEPS["start"] += 1

    @rule(user=users)
    def start_all_at_once(self, user: str) -> None:
        mine = [
            key for key, job in self.jobs.items() if (job.user, job.status) == (user, "created")
        ] * 2  # each is started twice
        outcomes: list[tuple[str, str]] = []
        self._at_once([lambda key=key: outcomes.append((key, self._start(key))) for key in mine])
        # Jobs that came back from workers wait too, whatever the limit is.
        left = max(0, WAITING - self._count(user, "queued"))
        started = {key for key in mine if self._status(key) == "queued"}
        assert len(started) == min(left, len(mine) // 2)
        assert {key for key, outcome in outcomes if outcome == "started"} == started
        for key in started:
            self.jobs[key].status = "queued"
        STEPS["start_all_at_once"] += 1

    @precondition(lambda self: self.jobs)
    @rule(which=which)
    def cancel(self, which: int) -> None:
        job_id, expected = self._pick(which)
        cancelled = self.context.jobs.cancel(job_id, expected.user)
        assert (cancelled is not None) == (expected.status in {"created", "queued", "running"})
        if cancelled is not None:
            expected.status = "cancelled"
        STEPS["cancel"] += 1

    @precondition(lambda self: self.jobs)
    @rule(which=which)
    def delete(self, which: int) -> None:
        job_id, expected = self._pick(which)
        self.context.deletion.delete([job_id], expected.user, expected.user)
        self.context.deletion.delete([job_id], "somebody else", "somebody else")
        expected.status = "deleted"
        STEPS["delete"] += 1

    # workers

    @rule(worker=workers, room=st.integers(1, 3), warm=st.sampled_from(([], ["c1"], ["c2"])))
    def claim(self, worker: str, room: int, warm: list[str]) -> None:
        startable = self._startable()
        claimed = self._claim(worker, room, warm)
        assert len(claimed) <= room
        assert bool(claimed) == bool(startable), "what waits is claimed"
        self._take(claimed)
        STEPS["claim"] += 1

    @rule(room=st.integers(1, 2))
    def claim_at_once(self, room: int) -> None:
        possible = self._most_startable()
        claimed: list[tuple[str, str, int]] = []
        self._at_once([lambda w=worker: claimed.extend(self._claim(w, room, [])) for worker in WORKERS])
        assert len({job_id for job_id, _, _ in claimed}) == len(claimed), "nobody shares a job"
        assert len(claimed) >= min(possible, len(WORKERS)), "workers with room do not go away empty"
        self._take(claimed)
        STEPS["claim_at_once"] += 1

    @precondition(lambda self: self.handles)
    @rule(which=which)
    def progress(self, which: int) -> None:
        report = {"step": 1, "steps": 2, "image": 0, "images": 1, "event": None, "at": None}
        self._as_holder(which, lambda *held: self.running.report(*held, report))

    @precondition(lambda self: self.handles)
    @rule(which=which)
    def complete(self, which: int) -> None:
        job_id, worker, attempt = self._handle(which)
        if self._as_holder(which, lambda *held: self.running.complete(*held, [f"image_{attempt}.png"], {})):
            self.jobs[job_id].status = "succeed"
            self.jobs[job_id].results.append((worker, attempt))

    @precondition(lambda self: self.handles)
    @rule(which=which)
    def complete_twice_at_once(self, which: int) -> None:
        job_id, worker, attempt = self._handle(which)
        current = self._is_current(job_id, worker, attempt)
        taken: list[bool] = []

        def once() -> None:
            try:
                self.running.complete(job_id, worker, attempt, [f"image_{attempt}.png"], {})
                taken.append(True)
            except AttemptOver:
                taken.append(False)

        self._at_once([once, once])
        assert sorted(taken) == [False, current]
        if current:
            self.jobs[job_id].status = "succeed"
            self.jobs[job_id].results.append((worker, attempt))
        STEPS["complete_twice_at_once"] += 1

    @precondition(lambda self: self.handles)
    @rule(which=which, kind=st.sampled_from(("request", "passing", "machine")))
    def fail(self, which: int, kind: str) -> None:
        job_id, _, _ = self._handle(which)
        if self._as_holder(which, lambda *held: self.running.fail(*held, kind, "it did not work")):
            self._failed(self.jobs[job_id], for_good=kind == "request")

    @precondition(lambda self: self.handles)
    @rule(which=which)
    def release(self, which: int) -> None:
        job_id, _, _ = self._handle(which)
        if self._as_holder(which, self.running.release):
            self.jobs[job_id].status = "queued"

    @rule(which=which, reapers=st.integers(1, 3))
    def expire(self, which: int, reapers: int) -> None:
        """A worker goes silent, and several look for such at once."""
        running = [key for key, job in self.jobs.items() if job.status == "running"]
        if not running:
            return
        job_id = running[which % len(running)]
        past = {"$subtract": ["$$NOW", 60_000]}
        self.context.database["jobs"].update_one({"_id": job_id}, [{"$set": {"lease.expires_at": past}}])
        found: list[int] = []
        self._at_once([lambda: found.append(self.running.requeue_expired())] * reapers)
        assert sum(found) == 1
        self._failed(self.jobs[job_id], for_good=False)
        STEPS["expire"] += 1

    # what holds

    @invariant()
    def every_job_is_where_the_model_says(self) -> None:
        found = {job["_id"]: job for job in self.context.database["jobs"].find({"endpoint": self.endpoint})}
        assert set(found) == set(self.jobs), "no job is lost"
        for job_id, expected in self.jobs.items():
            job = found[job_id]
            assert (job["status"], job["attempt"]) == (expected.status, expected.attempt)
            states = [None, *(entry["status"] for entry in job["history"])]
            assert states[-1] == job["status"]
            for before, after in pairwise(states):
                assert after in LEGAL[before], f"{before} → {after}"
            assert len(expected.results) == states.count("succeed") <= 1, "never two results"
            names = [f"image_{attempt}.png" for _, attempt in expected.results]
            assert job.get("image_names", []) == names
            assert ("lease" in job) == (job["status"] in {"running", "deleted"})

    def teardown(self) -> None:
        """Whatever was accepted comes to an end."""
        for _ in range(len(self.jobs) * (ATTEMPTS + 1)):
            for key, job in self.jobs.items():
                if job.status == "running":
                    self.running.complete(key, str(job.holder), job.attempt, [], {})
                    job.status = "succeed"
            self._take(self._claim("w1", 3, []))
            if not any(job.status in {"queued", "running"} for job in self.jobs.values()):
                break
        ended = {self._status(key) for key, job in self.jobs.items() if job.status != "created"}
        assert ended <= {"succeed", "failed", "cancelled", "deleted"}

    # words of the rules

    def _pick(self, which: int) -> tuple[str, Expected]:
        job_id = list(self.jobs)[which % len(self.jobs)]
        return job_id, self.jobs[job_id]

    def _handle(self, which: int) -> tuple[str, str, int]:
        """An attempt that was ever handed out, in two of three cases one that goes on."""
        current = [handle for handle in self.handles if self._is_current(*handle)]
        choice = current if current and which % 3 else self.handles
        return choice[which % len(choice)]

    def _is_current(self, job_id: str, worker: str, attempt: int) -> bool:
        job = self.jobs[job_id]
        return (job.status, job.holder, job.attempt) == ("running", worker, attempt)

    def _as_holder(self, which: int, act: Callable[..., None]) -> bool:
        """Act for an attempt: it works when the attempt is the current one, and only then."""
        handle = self._handle(which)
        try:
            act(*handle)
            worked = True
        except AttemptOver:
            worked = False
        assert worked == self._is_current(*handle)
        STEPS["holder" if worked else "late"] += 1
        return worked

    def _failed(self, job: Expected, for_good: bool) -> None:
        job.failures += not for_good
        job.status = "failed" if for_good or job.failures >= ATTEMPTS else "queued"

    def _start(self, job_id: str) -> str:
        job = self.context.jobs.find(job_id, None)
        if job is None:
            return "absent"
        try:
            self.starting.start(job, job["user"])
        except TooManyWaiting:
            return "refused"
        except AlreadyFinished:
            return "over"
        return "started"

    def _claim(self, worker: str, room: int, warm: list[str]) -> list[tuple[str, str, int]]:
        jobs = self.running.claim(worker, [self.endpoint], warm, room)
        return [(job["id"], worker, job["attempt"]) for job in jobs]

    def _take(self, claimed: list[tuple[str, str, int]]) -> None:
        for job_id, worker, attempt in claimed:
            job = self.jobs[job_id]
            assert (job.status, job.attempt + 1) == ("queued", attempt)
            job.status, job.attempt, job.holder = "running", attempt, worker
        self.handles += claimed
        for user in USERS:
            assert self._count(user, "running") <= RUNNING

    def _startable(self) -> list[str]:
        """Jobs that wait and whose users may have one more running."""
        return [
            key
            for key, job in self.jobs.items()
            if job.status == "queued" and self._count(job.user, "running") < RUNNING
        ]

    def _most_startable(self) -> int:
        room = {user: RUNNING - self._count(user, "running") for user in USERS}
        return sum(min(room[user], self._count(user, "queued")) for user in USERS)

    def _count(self, user: str, status: str) -> int:
        return sum((job.user, job.status) == (user, status) for job in self.jobs.values())

    def _status(self, job_id: str) -> Status:
        found = self.context.database["jobs"].find_one({"_id": job_id})
        assert found is not None
        return Status(found["status"])

    @staticmethod
    def _at_once(calls: list[Callable[[], Any]]) -> None:
        failures: list[BaseException] = []

        def guarded(call: Callable[[], Any]) -> None:
            try:
                call()
            except BaseException as failure:
                failures.append(failure)

        threads = [threading.Thread(target=guarded, args=(call,)) for call in calls]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []


def run(context: Context, examples: int) -> None:
    STEPS.clear()
    run_state_machine_as_test(
        lambda: Lifecycle(context),
        settings=settings(
            max_examples=examples,
            stateful_step_count=60,
            deadline=None,
            derandomize=examples < 100,  # the same steps each time; on demand others
            suppress_health_check=list(HealthCheck),
            database=None,
            print_blob=True,
        ),
    )
    print(f"{sum(STEPS.values())} steps:", dict(sorted(STEPS.items())))


def test_whatever_clients_and_workers_do_no_job_is_lost_or_finished_twice(service: Service) -> None:
    run(service.context, int(os.environ.get("LIFECYCLE_EXAMPLES", "40")))
    assert sum(STEPS.values()) > 1000


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_same_for_many_more_steps(service: Service) -> None:
    run(service.context, int(os.environ.get("LIFECYCLE_EXAMPLES", "1500")))
