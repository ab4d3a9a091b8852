"""What clients are told about their place in line and the time that they will wait."""

from typing import Any

import pytest

from services.inference import line_repository, waiting
from services.inference.waiting import Instances
from tests.inference.conftest import ENDPOINT, Service


@pytest.fixture(autouse=True)
def nothing_known(service: Service) -> None:
    service.context.waiting._instances._known.clear()


def shown(service: Service, job_id: str) -> dict[str, Any]:
    return dict(service.get(f"/inferences/{job_id}").json["data"])


def test_without_a_finished_job_nobody_knows_how_long_it_takes(service: Service) -> None:
    job_id = service.started()
    assert (shown(service, job_id)["queue_position"], shown(service, job_id)["estimated_wait_seconds"]) == (
        1,
        None,
    )


def test_the_wait_follows_the_place_the_pace_and_the_instances(service: Service) -> None:
    service.context.pace.took(ENDPOINT["name"], 10.0)
    service.others.answers["candidates"] = lambda _: {"endpoints": [ENDPOINT | {"instance_count": 2}]}
    ids = [service.started() for _ in range(5)]
    assert [shown(service, job_id)["estimated_wait_seconds"] for job_id in ids] == [0, 5, 10, 15, 20]
    service.claimed("one")
    service.claimed("two")
    assert [shown(service, job_id)["queue_position"] for job_id in ids] == [None, None, 1, 2, 3]
    waits = [shown(service, job_id)["estimated_wait_seconds"] for job_id in ids]
    assert waits[:2] == [None, None]
    assert waits[2:] == [3.3, 8.3, 13.3]


def test_a_list_tells_the_same_places_as_each_job(service: Service) -> None:
    service.context.pace.took(ENDPOINT["name"], 10.0)
    for user in ("ann", "ben", "ann", "ben", "ann"):
        service.started(user=user)
    service.claimed()
    listed = service.get("/inferences").json["data"]["inferences"]
    for job in listed:
        alone = shown(service, job["InferenceJobId"])
        for name in ("queue_position", "estimated_wait_seconds", "status"):
            assert job[name] == alone[name]
    assert sorted(job["queue_position"] or 0 for job in listed) == [0, 1, 2, 3, 4]


def test_where_nobody_works_no_wait_is_promised(service: Service) -> None:
    service.context.pace.took(ENDPOINT["name"], 10.0)
    service.others.answers["candidates"] = lambda _: {"endpoints": [ENDPOINT | {"instance_count": 0}]}
    job_id = service.prepared()
    service.put(f"/inferences/{job_id}/start")
    assert shown(service, job_id)["estimated_wait_seconds"] is None


def test_the_endpoints_service_is_asked_once_in_a_while(service: Service) -> None:
    job_id = service.started()
    service.others.calls.clear()
    for _ in range(5):
        shown(service, job_id)
    assert [name for name, _ in service.others.calls] == ["candidates"]


def test_an_endpoints_service_that_is_away_costs_the_estimate_only(service: Service) -> None:
    service.context.pace.took(ENDPOINT["name"], 10.0)
    job_id = service.started()
    del service.others.answers["candidates"]
    assert shown(service, job_id)["queue_position"] == 1
    assert shown(service, job_id)["estimated_wait_seconds"] is None


def test_finished_jobs_make_the_pace(service: Service) -> None:
    job_id = service.started()
    job = service.claimed()
    before = {"$subtract": ["$started_at", 8000]}
    service.context.database["jobs"].update_one({"_id": job_id}, [{"$set": {"started_at": before}}])
    service.work(f"jobs/{job_id}/complete", attempt=job["attempt"], images=[])
    pace = service.context.pace.seconds(ENDPOINT["name"])
    assert pace is not None
    assert 8 <= pace < 60


def test_jobs_of_a_batch_count_for_the_share_of_time_that_each_took(service: Service) -> None:
    ids = [service.started('{"steps": 5}') for _ in range(4)]
    jobs = service.work("claim", endpoints=[ENDPOINT["name"]], room=4).json["jobs"]
    assert [job["id"] for job in jobs] == ids
    assert {service.context.jobs.find(job_id, None)["together"] for job_id in ids} == {4}  # type: ignore[index]


def test_positions_are_counted_up_to_a_bound(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [service.started() for _ in range(4)]
    line = service.context.line
    places = [line.position(line._jobs.find_one({"_id": job_id}) or {}, counted=2) for job_id in ids]
    assert places == [1, 2, None, None]
    monkeypatch.setattr(waiting, "PLACES_IN_LISTS", 3)
    listed = service.get("/inferences").json["data"]["inferences"]
    assert [job["queue_position"] for job in listed] == [None, 3, 2, 1]
    monkeypatch.setattr(line_repository, "COUNTED", 2)
    assert line.backlog([ENDPOINT["name"]])[ENDPOINT["name"]] == {"waiting": 2, "running": 0}


def test_an_unknown_endpoint_has_no_instances(service: Service) -> None:
    instances: Instances = service.context.waiting._instances
    assert instances.of("esd-async-gone") is None
