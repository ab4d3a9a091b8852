"""The order in which waiting jobs are claimed: turns, head starts, warm models, batches."""

import threading
from typing import Any

import pytest

from services.inference.scheduling import MOST_OVERTAKEN, WINDOW, choose_warm, rank_of, turn_of
from tests.inference.conftest import ENDPOINT, SHAPES, Service

ORDINARY = {"permissions": ("inference:create", "inference:list", "inference:delete")}


def claim_all(service: Service, count: int, **claim: Any) -> list[str]:
    """The ids of so many claims, in their order."""
    found = []
    for _ in range(count):
        (job,) = service.work("claim", endpoints=[ENDPOINT["name"]], **claim).json["jobs"]
        found.append(job["id"])
    return found


def place_of(service: Service, job_id: str) -> Any:
    return service.get(f"/inferences/{job_id}").json["data"]["queue_position"]


# fair share


def test_five_jobs_of_one_user_start_among_the_first_dozen_of_five_hundred(service: Service) -> None:
    """The flood is put into the line as starts do it, without its 500 uploads."""
    template = service.context.jobs.find(service.started(), None)
    assert template is not None
    flood = [template["_id"]]
    for number in range(499):
        turn = service.context.shares.next_turn(ENDPOINT["name"], "ann")
        job = template | {"_id": f"flood-{number}", "rank": rank_of(turn, 0)}
        service.context.database["jobs"].insert_one(job)
        flood.append(job["_id"])
    few = [service.started(user="ben") for _ in range(5)]
    order = claim_all(service, 12)
    print("claims by user:", " ".join("ben" if job_id in few else "ann" for job_id in order))
    assert set(few) <= set(order)
    assert [job_id for job_id in order if job_id in flood] == flood[:7]


def test_turns_conserve_the_share_of_a_user_with_urgent_jobs(service: Service) -> None:
    """Who calls everything urgent gets a head start of ten turns once, and one job in two from then on."""
    urgent = [service.started(priority=10) for _ in range(30)]
    others = [service.started(user="ben") for _ in range(6)]
    order = claim_all(service, 24)
    assert order[:10] == urgent[:10]
    assert sum(job_id in others for job_id in order[10:]) == 6


# priority


def test_an_urgent_job_goes_first_and_keeps_the_order_of_the_others(service: Service) -> None:
    usual = [service.started(user=user) for user in ("ann", "ben", "ann", "ben")]
    urgent = service.started(user="ben", priority="high")
    assert place_of(service, urgent) == 1
    order = claim_all(service, 5)
    assert order[0] == urgent
    assert [job_id for job_id in order if job_id in usual[::2]] == usual[::2]


def test_an_urgent_job_takes_its_users_next_turn_however_many_wait(service: Service) -> None:
    usual = [service.started() for _ in range(30)]
    urgent = service.started(priority=1)
    later = service.started(user="ben")
    order = claim_all(service, 32)
    assert order[0] == urgent
    assert order.index(later) <= 2
    assert set(order) == {*usual, urgent, later}


def test_a_low_priority_waits_for_usual_ones_but_not_for_ever(service: Service) -> None:
    low = service.started(priority=-10)
    usual = [service.started(user="ben") for _ in range(14)]
    order = claim_all(service, 15)
    assert order.index(low) == 10
    assert [job_id for job_id in order if job_id != low] == usual


def test_a_start_may_say_another_priority_than_the_creation(service: Service) -> None:
    job_id = service.prepared(priority="low")
    assert service.get(f"/inferences/{job_id}").json["data"]["priority"] == -5
    assert service.put(f"/inferences/{job_id}/start", {"priority": 3}).status_code == 202
    assert service.get(f"/inferences/{job_id}").json["data"]["priority"] == 3


@pytest.mark.parametrize("wrong", ["urgent", 11, -11, 1.5, True, [], {}])
def test_what_is_no_priority_is_refused(service: Service, wrong: Any) -> None:
    job_id = service.prepared()
    response = service.put(f"/inferences/{job_id}/start", {"priority": wrong})
    assert response.status_code == 400
    assert "priority" in response.json["errors"]
    assert service.get(f"/inferences/{job_id}").json["data"]["status"] == "created"


def test_only_as_high_as_ones_roles_allow(service: Service) -> None:
    job_id = service.prepared()
    refused = service.put(f"/inferences/{job_id}/start", {"priority": 1}, **ORDINARY)
    assert refused.status_code == 403
    assert refused.json["message"] == "priority may be at most 0 for your roles, not 1"
    assert service.put(f"/inferences/{job_id}/start", {"priority": -3}, **ORDINARY).status_code == 202


def test_roles_may_be_allowed_more(limited: Any) -> None:
    service = limited(roles={"artists": {"priority": 5}, "leads": {"priority": 8}})
    job_id = service.prepared()
    start = f"/inferences/{job_id}/start"
    assert service.put(start, {"priority": 6}, **ORDINARY).status_code == 403
    assert service.put(start, {"priority": 8}, roles=("artists", "leads"), **ORDINARY).status_code == 202


# warm models


def with_checkpoint(service: Service, job_id: str, checkpoint: str) -> str:
    models = [SHAPES | {"id": checkpoint}]
    service.context.database["jobs"].update_one({"_id": job_id}, {"$set": {"models": models}})
    return job_id


def test_a_job_whose_model_is_warm_goes_first_a_bounded_number_of_times(service: Service) -> None:
    cold = with_checkpoint(service, service.started(), "cold")
    warm = [with_checkpoint(service, service.started(user="ben"), "warm") for _ in range(10)]
    order = claim_all(service, 11, warm=["warm"])
    assert order.index(cold) == MOST_OVERTAKEN
    assert [job_id for job_id in order if job_id != cold] == warm


def test_a_warm_job_far_back_in_line_passes_nobody(service: Service) -> None:
    line = [with_checkpoint(service, service.started(), "cold") for _ in range(WINDOW)]
    far = with_checkpoint(service, service.started(), "warm")
    assert claim_all(service, 2, warm=["warm"]) == [line[0], far]


def test_no_job_is_passed_more_often_by_many_workers_at_once(service: Service) -> None:
    cold = with_checkpoint(service, service.started(), "cold")
    warm = [with_checkpoint(service, service.started(user="ben"), "warm") for _ in range(14)]
    order: list[str] = []
    app = service.client.application

    def work(worker: str) -> None:
        body = {"worker_id": worker, "endpoints": [ENDPOINT["name"]], "warm": ["warm"]}
        with app.test_client() as client:
            answer = client.post("/internal/claim", json=body, headers=service.keys.worker(worker))
            order.extend(job["id"] for job in answer.json["jobs"])

    threads = [threading.Thread(target=work, args=(f"w{number}",)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(order)) == 10
    assert cold in order
    job = service.context.jobs.find(cold, None)
    assert job is not None
    assert job["overtaken"] <= MOST_OVERTAKEN
    assert set(order) <= {cold, *warm}


def test_the_choice_of_a_warm_job() -> None:
    def job(checkpoint: str, overtaken: int = 0) -> dict[str, Any]:
        models = [{"id": checkpoint, "type": "Stable-diffusion"}, {"id": "vae", "type": "VAE"}]
        return {"models": models, "overtaken": overtaken}

    assert choose_warm([], {"a"}) == 0
    assert choose_warm([job("a"), job("b")], {"a", "b"}) == 0
    assert choose_warm([job("a"), job("b"), job("c")], {"c"}) == 2
    assert choose_warm([job("a"), job("b", MOST_OVERTAKEN), job("c")], {"c"}) == 0
    assert choose_warm([job("a"), job("b", MOST_OVERTAKEN)], {"b"}) == 1
    assert choose_warm([{"models": []}, job("a")], {"a"}) == 1


def test_rank_and_turn_are_each_others_inverse() -> None:
    assert turn_of({"rank": rank_of(7, -3), "priority": -3}) == 7


def test_a_worker_is_told_which_files_come_next_and_claims_none_by_it(service: Service) -> None:
    line = [with_checkpoint(service, service.started(), name) for name in ("first", "second", "third")]
    answer = service.work("upcoming", endpoints=[ENDPOINT["name"]])
    assert [file["id"] for file in answer.json["files"]] == ["first", "second"]
    assert service.work("upcoming", endpoints=["esd-async-other"]).json["files"] == []
    [job] = service.work("claim", endpoints=[ENDPOINT["name"]]).json["jobs"]
    told, claimed = answer.json["files"][0], job["models"][0]
    assert told["url"].partition("?")[0] == claimed["url"].partition("?")[0]
    assert told | {"url": ""} == claimed | {"url": ""}
    assert [job["id"], *claim_all(service, 2, warm=[])] == line


@pytest.mark.parametrize("endpoints", [None, "esd-async-one", [""], [1], ["x" * 256]])
def test_a_look_ahead_that_makes_no_sense_is_refused(service: Service, endpoints: Any) -> None:
    refused = service.work("upcoming", endpoints=endpoints)
    assert refused.status_code == 400
    assert "endpoints" in str(refused.json)
