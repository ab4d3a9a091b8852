"""A lease reports, renews and hears, without ever holding up the computing thread."""

import time
from collections.abc import Callable, Iterator

import pytest

from gpu_worker.client import ServiceClient
from gpu_worker.errors import AttemptLost, Cancelled, Released, ServiceUnreachable
from gpu_worker.jobs import Job
from gpu_worker.lease import Lease
from tests.gpu_worker.conftest import worker_config
from tests.gpu_worker.platform import Platform

MakeLease = Callable[..., Lease]


@pytest.fixture
def make_lease(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeLease]:
    client = ServiceClient(worker_config(platform.url, tmp_path_factory.mktemp("lease")))
    leases: list[Lease] = []

    def make(lease_seconds: float = 5.0, must_release: Callable[[], bool] = lambda: False) -> Lease:
        job = Job("job1", 1, lease_seconds, "e", "txt2img", "r", "", 1, ())
        leases.append(Lease(client, job, must_release))
        return leases[-1]

    yield make
    for lease in leases:
        lease.close()


def test_steps_are_coalesced_but_the_first_and_last_are_sent_at_once(
    platform: Platform, make_lease: MakeLease
) -> None:
    lease = make_lease()
    lease.start(images=1, steps=40)
    for step in range(1, 41):
        lease.step(step, finished=0, batch=1)
        time.sleep(0.015)
    platform.wait_for(lambda: any(report["event"] == "last_step" for report in platform.progress), 2)
    events = [report for report in platform.progress if report["event"]]
    assert [report["event"] for report in events] == ["first_step", "last_step"]
    assert all(report["heard_at"] - report["at"] < 0.2 for report in events)
    assert len(platform.progress) <= 6


def test_a_lease_is_renewed_while_nothing_happens(platform: Platform, make_lease: MakeLease) -> None:
    make_lease(lease_seconds=0.4)
    platform.wait_for(lambda: len(platform.progress) >= 3, 5)


def test_a_step_never_waits_for_the_network(platform: Platform, make_lease: MakeLease) -> None:
    lease = make_lease()
    platform.broken["progress"] = 1000
    lease.start(images=1, steps=1000)
    started = time.monotonic()
    for step in range(1, 1000):
        lease.step(step, finished=0, batch=1)
    assert time.monotonic() - started < 0.5


def test_an_event_that_was_not_taken_is_sent_again(platform: Platform, make_lease: MakeLease) -> None:
    lease = make_lease()
    platform.broken["progress"] = 2
    lease.start(images=1, steps=2)
    lease.step(1, finished=0, batch=1)
    platform.wait_for(lambda: any(report["event"] == "first_step" for report in platform.progress), 5)


def stopped(lease: Lease, reason: type[Exception]) -> bool:
    for _ in range(200):
        try:
            lease.check()
        except reason:
            return True
        time.sleep(0.02)
    return False


def test_the_answer_cancel_stops_the_work(platform: Platform, make_lease: MakeLease) -> None:
    platform.cancelled.add("job1")
    lease = make_lease()
    lease.ask_service()
    assert stopped(lease, Cancelled)


def test_a_conflict_stops_the_work(platform: Platform, make_lease: MakeLease) -> None:
    platform.fenced.add("job1")
    lease = make_lease()
    lease.ask_service()
    assert stopped(lease, AttemptLost)


def test_a_worker_that_must_stop_releases(make_lease: MakeLease) -> None:
    assert stopped(make_lease(must_release=lambda: True), Released)


def test_upload_urls_are_fetched_with_the_last_step(platform: Platform, make_lease: MakeLease) -> None:
    lease = make_lease()
    lease.prepare_uploads(["image_0.png"])
    lease.start(images=1, steps=1)
    lease.step(1, finished=0, batch=1)
    assert list(lease.upload_urls()) == ["image_0.png"]


def test_a_call_is_repeated_until_the_lease_is_over(platform: Platform, make_lease: MakeLease) -> None:
    lease = make_lease(lease_seconds=1.0)
    platform.broken["progress"] = 1000
    tries: list[float] = []

    def call() -> None:
        tries.append(time.monotonic())
        raise ServiceUnreachable("away")

    with pytest.raises(ServiceUnreachable):
        lease.persist(call)
    assert len(tries) > 2
    assert tries[-1] - tries[0] < 1.5
