"""A job's record: its history, and the indexes that its lists are read from."""

from datetime import timedelta
from typing import Any

import pytest

from services.common.paging import next_key
from services.common.times import now
from services.inference.records import LONGEST_HISTORY
from services.inference.states import TASK_TYPES, Status
from tests.inference.conftest import ENDPOINT, Service


def test_the_history_tells_who_did_what_when_and_why(service: Service) -> None:
    job_id = service.started()
    service.claimed()
    service.work(f"jobs/{job_id}/fail", attempt=1, kind="passing", message="out of memory")
    service.claimed("worker-2")
    service.work(f"jobs/{job_id}/complete", "worker-2", attempt=2, images=["image_0.png"])
    history = service.get(f"/inferences/{job_id}").json["data"]["history"]
    assert [(line["state"], line["actor"], line["reason"]) for line in history] == [
        ("created", "ann", None),
        ("queued", "ann", None),
        ("running", "worker-1", None),
        ("queued", "worker-1", "out of memory"),
        ("running", "worker-2", None),
        ("succeed", "worker-2", None),
    ]
    times = [line["time"] for line in history]
    assert times == sorted(times)


def test_a_history_does_not_grow_for_ever(service: Service) -> None:
    """An endpoint without room gives a job back every few seconds, all day long."""
    job_id = service.started()
    for attempt in range(1, LONGEST_HISTORY):
        service.claimed()
        service.work(f"jobs/{job_id}/release", attempt=attempt)
    history = service.context.database["jobs"].find_one({"_id": job_id})["history"]  # type: ignore[index]
    assert len(history) == LONGEST_HISTORY
    assert [line["status"] for line in history[-2:]] == ["running", "queued"]


def stages(plan: dict[str, Any]) -> list[str]:
    """The names of a plan's stages, from the top."""
    inner = plan.get("inputStages") or [plan[name] for name in ("inputStage", "queryPlan") if name in plan]
    return [plan[name] for name in ("stage",) if name in plan] + [
        one for part in inner for one in stages(part)
    ]


FILTERS = [
    {},
    {"status": "succeed"},
    {"status": "inprogress"},
    {"task_type": "rembg"},
    {"endpoint": ENDPOINT["name"]},
    {"status": "failed", "task_type": "txt2img", "endpoint": ENDPOINT["name"]},
]


@pytest.fixture()
def many(service: Service) -> Service:
    """A hundred jobs of every task, state and of two users."""
    states = [status for status in Status if status != Status.DELETED]
    service.context.database["jobs"].insert_many(
        {
            "_id": f"{number:04}",
            "user": ("ann", "ben")[number % 2],
            "status": states[number % len(states)],
            "task_type": TASK_TYPES[number % len(TASK_TYPES)],
            "endpoint": ENDPOINT["name"],
            "created_at": now() - timedelta(seconds=number),
            "history": [],
        }
        for number in range(400)
    )
    return service


@pytest.mark.parametrize("owner", [None, "ann"])
@pytest.mark.parametrize("filters", FILTERS, ids=lambda filters: "+".join(filters) or "none")
@pytest.mark.parametrize("page", [1, 2])
def test_every_list_is_read_from_an_index_in_its_order(
    many: Service, owner: str | None, filters: dict[str, Any], page: int
) -> None:
    """No sort in memory, no scan, and hardly a record looked at that is not shown."""
    limit = 5
    jobs = many.context.jobs
    key = next_key(jobs.page(owner, filters, limit, None), limit, "created_at") if page == 2 else None
    plan = jobs.listing(owner, filters, key).limit(limit + 1).explain()
    names = stages(plan["queryPlanner"]["winningPlan"])
    assert "IXSCAN" in names
    assert not {"COLLSCAN", "SORT"} & set(names), names
    # The next page begins by passing over what the one before ended with.
    assert plan["executionStats"]["totalDocsExamined"] <= limit + page
