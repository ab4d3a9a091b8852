"""Lists are read in order by an index, however many checkpoints there are."""

import uuid
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from services.checkpoints.checkpoint import Checkpoint, Viewer
from services.checkpoints.records import NEWEST_FIRST
from services.common.times import now
from tests.checkpoints.conftest import Service

MANY = 4000
PAGE = 10
ANN = Viewer("ann", ("artists", "critics"))
EVERYBODY = Viewer("root", see_all=True)


@pytest.fixture(scope="module")
def crowded(start_service: Any) -> Iterator[Service]:
    """A service with many checkpoints, of which ann sees one in twenty."""
    service = start_service()
    begin = now() - timedelta(days=1)
    kinds, states = (
        ("Lora", "VAE", "Stable-diffusion"),
        ("Active", "Active", "Disabled", "Initial", "Deleting"),
    )
    service.parts.database["checkpoints"].insert_many(
        {
            "_id": str(uuid.uuid4()),
            "type": kinds[number % 3],
            "status": states[number // 40 % 5],
            "creator": "ann" if number % 40 == 0 else f"user-{number % 700}",
            "allowed": ["artists"] if number % 40 == 1 else [f"role-{number % 50}"],
            "files": [{"name": f"file-{number}.safetensors", "key": f"{number}"}],
            "params": {},
            "created": begin + timedelta(seconds=number),
            "touched": begin,
            "trash": [],
        }
        for number in range(MANY)
    )
    yield service


def stages(plan: Any) -> Iterator[str]:
    """The names of all stages of a plan that MongoDB explains."""
    if isinstance(plan, dict):
        if "stage" in plan:
            yield plan["stage"]
        for member in plan.values():
            yield from stages(member)
    elif isinstance(plan, list):
        for member in plan:
            yield from stages(member)


@pytest.mark.parametrize("viewer", [ANN, EVERYBODY], ids=["ann", "everybody"])
@pytest.mark.parametrize(
    "filters",
    [
        {},
        {"status": ["Active"]},
        {"status": ["Active", "Disabled"]},
        {"types": ["Lora"]},
        {"types": ["Lora", "VAE"], "status": ["Active"]},
        {"roles": ["artists"]},
        {"username": "ann"},
        {"username": "ann", "types": ["VAE"], "status": ["Disabled"]},
        {"roles": ["artists", "role-3"], "username": "user-1", "types": ["Lora"], "status": ["Active"]},
    ],
    ids=lambda filters: "+".join(filters) or "none",
)
def test_a_page_is_read_in_order_by_an_index(
    crowded: Service, monkeypatch: pytest.MonkeyPatch, viewer: Viewer, filters: dict[str, Any]
) -> None:
    repository, database = crowded.parts.repository, crowded.parts.database
    plans: list[Any] = []
    read = repository._all

    def explained(query: Any, skip: int = 0, limit: int = 0) -> list[Checkpoint]:
        command = {"find": "checkpoints", "filter": query, "sort": dict(NEWEST_FIRST), "limit": limit}
        plans.append(database.command("explain", command, verbosity="executionStats"))
        return read(query, skip, limit)

    monkeypatch.setattr(repository, "_all", explained)
    found = repository.list_page(viewer, filters, PAGE, None)
    assert found == sorted(found, key=lambda one: (one.created, one.id), reverse=True)
    assert len({one.id for one in found}) == len(found)
    (plan,) = plans
    used = set(stages(plan["queryPlanner"]["winningPlan"]))
    assert "COLLSCAN" not in used
    assert "SORT" not in used or len(found) <= PAGE, "a page of many is not sorted in memory"
    assert plan["executionStats"]["totalDocsExamined"] < MANY / 10


def test_what_may_be_seen_in_two_ways_is_counted_once(crowded: Service) -> None:
    checkpoints = crowded.parts.database["checkpoints"]
    checkpoints.update_many({"creator": "ann"}, {"$push": {"allowed": "artists"}})
    live = checkpoints.count_documents({"allowed": "artists", "status": {"$ne": "Deleting"}})
    assert 0 < crowded.parts.repository.count(ANN, {}) == live
