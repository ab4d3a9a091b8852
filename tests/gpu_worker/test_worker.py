"""When a worker takes a training beside its endpoints."""

import threading
from pathlib import Path

import pytest

from gpu_worker.long_work import LongWork
from tests.gpu_worker.conftest import StartWorker
from tests.gpu_worker.platform import Platform

SMALL = {"prompt": "a cat", "steps": 2, "width": 64, "height": 64, "seed": 5}


def test_a_worker_with_a_free_slot_trains_at_once(start_worker: StartWorker) -> None:
    with start_worker(WORKER_SLOTS="2", WORKER_TRAINING_QUIET_SECONDS="3600") as worker:
        assert worker.may_train()


def test_a_worker_full_of_endpoints_trains_only_after_a_quiet_time(start_worker: StartWorker) -> None:
    with start_worker(WORKER_SLOTS="1", WORKER_TRAINING_QUIET_SECONDS="3600") as worker:
        assert not worker.may_train()


def test_a_job_begins_the_quiet_time_anew(
    platform: Platform, models: Path, start_worker: StartWorker
) -> None:
    model = platform.put_file(models / "sd1.safetensors")
    with start_worker(WORKER_SLOTS="1", WORKER_TRAINING_QUIET_SECONDS="0") as worker:
        platform.submit("job1", [model], SMALL | {"steps": 150})
        platform.wait_for(lambda: bool(platform.progress))
        assert not worker.may_train()
        assert worker.loop.quiet_seconds == 0
        platform.end_of("job1")
        platform.wait_for(lambda: platform.heartbeats[-1]["state"] == "idle")
        assert 0 < worker.loop.quiet_seconds < 20
        assert worker.may_train()


@pytest.mark.parametrize(("slots", "left"), [("2", 1), ("1", 1)])
def test_a_training_takes_a_free_slot_but_none_from_an_endpoint(
    platform: Platform, start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch, slots: str, left: int
) -> None:
    done = threading.Event()
    monkeypatch.setattr(LongWork, "_do", lambda *_work: done.wait(60))
    environment = {"WORKER_TRAINING_QUIET_SECONDS": "0", "TRAINING_URL": f"{platform.url}/training"}
    with start_worker(WORKER_SLOTS=slots, **environment):
        platform.long_work.append({"id": "training1", "attempt": 1, "kind": "training"})
        platform.wait_for(lambda: platform.heartbeats[-1]["running"] == ["training1"])
        assert platform.heartbeats[-1]["slots"] == left
        done.set()
        platform.wait_for(lambda: platform.heartbeats[-1]["slots"] == int(slots))
