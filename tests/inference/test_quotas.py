"""Limits of users: exact however many requests come at once, and given back by what ends."""

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from services.common.times import now
from services.inference.limits import LimitTable
from tests.inference.conftest import ENDPOINT, WANTED, Service

INLINE = {name: WANTED[name] for name in ("task_type", "models")}


def at_once(calls: list[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def start_all(service: Service, job_ids: list[str]) -> list[int]:
    """The answers of starts that come at the same time."""
    app, answers = service.client.application, []

    def start(job_id: str) -> None:
        with app.test_client() as client:
            answer = client.put(f"/inferences/{job_id}/start", headers=service.keys.user())
            answers.append(answer.status_code)

    at_once([lambda job_id=job_id: start(job_id) for job_id in job_ids])  # type: ignore[misc]
    return answers


def waiting(service: Service) -> int:
    return service.context.line.backlog([ENDPOINT["name"]])[ENDPOINT["name"]]["waiting"]


# waiting


def test_starts_at_once_take_exactly_the_places_that_are_left(limited: Any) -> None:
    service = limited(default={"waiting": 5})
    answers = start_all(service, [service.prepared() for _ in range(16)])
    assert sorted(answers) == [202] * 5 + [429] * 11
    assert waiting(service) == 5


def test_a_refused_start_says_when_to_come_again_and_leaves_the_job_as_it_was(limited: Any) -> None:
    service = limited(default={"waiting": 1})
    service.started()
    job_id = service.prepared()
    refused = service.put(f"/inferences/{job_id}/start")
    assert refused.status_code == 429
    assert "1 of your jobs wait already" in refused.json["message"]
    assert int(refused.headers["Retry-After"]) > 0
    assert service.get(f"/inferences/{job_id}").json["data"]["status"] == "created"
    service.claimed()
    assert service.put(f"/inferences/{job_id}/start").status_code == 202


@pytest.mark.parametrize("end", ["cancel", "delete", "claim"])
def test_whatever_ends_the_waiting_gives_the_place_back(limited: Any, end: str) -> None:
    service = limited(default={"waiting": 1})
    first, second = service.started(), service.prepared()
    if end == "cancel":
        service.put(f"/inferences/{first}/cancel")
    elif end == "delete":
        service.delete("/inferences", {"inference_id_list": [first]})
    else:
        service.claimed()
    assert service.put(f"/inferences/{second}/start").status_code == 202


def test_a_second_start_of_a_waiting_job_needs_no_second_place(limited: Any) -> None:
    service = limited(default={"waiting": 1})
    job_id = service.prepared()
    assert sorted(start_all(service, [job_id] * 6)) == [202] * 6


def test_one_users_places_are_not_anothers(limited: Any) -> None:
    service = limited(default={"waiting": 1})
    service.started()
    service.started(user="ben")


def test_a_job_that_comes_with_its_parameters_and_is_refused_is_not_kept(limited: Any) -> None:
    service = limited(default={"waiting": 1, "steps": 30})
    service.started()
    body = INLINE | {"prompt": "a red circle"}
    assert service.post("/inferences", body).status_code == 429
    assert service.post("/inferences", body | {"steps": 31}).status_code == 400
    assert len(service.get("/inferences").json["data"]["inferences"]) == 1


# running


def claim(service: Service, worker: str, room: int = 1) -> list[str]:
    body = {"worker_id": worker, "endpoints": [ENDPOINT["name"]], "room": room}
    with service.client.application.test_client() as client:
        answer = client.post("/internal/claim", json=body, headers=service.keys.worker(worker))
    return [job["id"] for job in answer.json["jobs"]]


def test_no_more_of_a_users_jobs_run_than_allowed_and_others_go_on(limited: Any) -> None:
    service = limited(default={"running": 2})
    mine = [service.started() for _ in range(5)]
    others = [service.started(user="ben") for _ in range(1)]
    claimed = [job_id for number in range(6) for job_id in claim(service, f"w{number}")]
    assert set(claimed) == {*mine[:2], *others}
    service.put(f"/inferences/{mine[0]}/cancel")
    assert claim(service, "w7") == [mine[2]]


def test_claims_at_once_keep_to_the_limit(limited: Any) -> None:
    service = limited(default={"running": 3})
    ids = [service.started() for _ in range(8)]
    claimed: list[str] = []
    at_once([lambda n=n: claimed.extend(claim(service, f"w{n}", room=2)) for n in range(8)])  # type: ignore[misc]
    assert len(claimed) == len(set(claimed)) == 3
    assert set(claimed) <= set(ids)
    assert waiting(service) == 5


def test_batches_keep_to_the_limit(limited: Any) -> None:
    service = limited(default={"running": 3})
    ids = [service.started() for _ in range(8)]
    assert claim(service, "w1", room=8) == ids[:3]
    assert claim(service, "w2", room=8) == []


def test_a_warm_model_does_not_lift_the_limit(limited: Any) -> None:
    service = limited(default={"running": 1})
    service.started()
    service.claimed()
    mine, other = service.started(), service.started(user="ben")
    service.context.database["jobs"].update_one({"_id": other}, {"$set": {"models.0.id": "cold"}})
    claimed = service.work("claim", "w2", endpoints=[ENDPOINT["name"]], warm=["c1"]).json["jobs"]
    assert [job["id"] for job in claimed] == [other]
    assert mine not in claimed


# images of a day


def test_the_images_of_a_day_are_counted_exactly(limited: Any) -> None:
    service = limited(default={"images_per_day": 10})
    ids = [service.prepared('{"batch_size": 3}') for _ in range(8)]
    assert sorted(start_all(service, ids)) == [202] * 3 + [429] * 5
    last = service.prepared('{"n_iter": 2}')
    refused = service.put(f"/inferences/{last}/start")
    assert refused.json["message"] == (
        "your roles allow 10 images a day (UTC), 9 of today's are taken and this job makes 2"
    )
    assert 0 < int(refused.headers["Retry-After"]) <= 86400
    service.started("{}")


def test_images_that_were_never_made_come_back(limited: Any) -> None:
    service = limited(default={"images_per_day": 2})
    failed, cancelled = service.started(), service.started()
    job = service.claimed()
    service.work(f"jobs/{failed}/fail", attempt=job["attempt"], kind="request", message="no such sampler")
    service.put(f"/inferences/{cancelled}/cancel")
    service.delete("/inferences", {"inference_id_list": [cancelled]})
    assert start_all(service, [service.prepared() for _ in range(4)]).count(202) == 2


def test_images_of_a_job_that_was_made_and_deleted_stay_spent(limited: Any) -> None:
    service = limited(default={"images_per_day": 1})
    job_id = service.started()
    job = service.claimed()
    service.work(f"jobs/{job_id}/complete", attempt=job["attempt"], images=["image_0.png"])
    service.delete("/inferences", {"inference_id_list": [job_id]})
    jobs = service.context.database["jobs"]
    jobs.update_one({"_id": job_id}, {"$set": {"lease.expires_at": now() - timedelta(hours=1)}})
    assert service.context.deletion.sweep() == 1
    assert service.put(f"/inferences/{service.prepared()}/start").status_code == 429


def test_images_of_a_deleted_waiting_job_come_back_when_its_record_goes(limited: Any) -> None:
    service = limited(default={"images_per_day": 1})
    job_id = service.started()
    service.delete("/inferences", {"inference_id_list": [job_id]})
    jobs = service.context.database["jobs"]
    jobs.update_one({"_id": job_id}, {"$set": {"lease.expires_at": now() - timedelta(hours=1)}})
    assert service.context.deletion.sweep() == 1
    service.started()


def test_yesterdays_images_do_not_count(limited: Any) -> None:
    service = limited(default={"images_per_day": 1})
    service.started()
    service.context.database["spent"].update_many({}, {"$set": {"day": "2000-01-01"}})
    service.started()


# size and steps


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        (
            '{"width": 1024, "height": 576}',
            "width 1024 times height 576 makes 589824 pixels: your roles allow at most 524288",
        ),
        ('{"steps": 31}', "steps must be at most 30 for your roles, not 31"),
    ],
)
def test_what_can_never_fit_is_a_bad_request(limited: Any, parameters: str, sentence: str) -> None:
    service = limited(default={"size": "1024x512", "steps": 30})
    service.started('{"width": 512, "height": 1024, "steps": 30}')
    refused = service.put(f"/inferences/{service.prepared(parameters)}/start")
    assert (refused.status_code, refused.json["message"]) == (400, sentence)
    assert "Retry-After" not in refused.headers


# how limits are found


def test_the_most_generous_of_a_users_roles_wins_and_their_own_entry_before_it() -> None:
    table = LimitTable.parse(
        '{"default": {"waiting": 1, "steps": 20}, "roles": {"a": {"waiting": 5}, "b": {"waiting": 3, '
        '"steps": null}}, "users": {"zoe": {"waiting": 2, "size": "10x10"}}}'
    )
    assert table.of("ann", []).waiting == 1
    assert table.of("ann", ["unknown"]).steps == 20
    assert (table.of("ann", ["a"]).waiting, table.of("ann", ["a"]).steps) == (5, 20)
    assert (table.of("ann", ["b", "a"]).waiting, table.of("ann", ["b", "a"]).steps) == (5, None)
    assert (table.of("zoe", ["a"]).waiting, table.of("zoe", ["a"]).pixels) == (2, 100)
    assert table.of("ann", ["a"]).priority == 0


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "no JSON"),
        ("[]", "must be an object"),
        ('{"role": {}}', "must be an object"),
        ('{"roles": 1}', "roles must be an object"),
        ('{"roles": {"a": []}}', "roles.a must be an object"),
        ('{"default": {"wait": 1}}', "default must be an object with some of"),
        ('{"default": {"waiting": 0}}', "default.waiting must be null or a whole number between 1"),
        ('{"default": {"waiting": true}}', "default.waiting"),
        ('{"default": {"waiting": 1.5}}', "default.waiting"),
        (
            '{"default": {"priority": 11}}',
            "default.priority must be null or a whole number between -10",
        ),
        ('{"users": {"a": {"size": "10"}}}', 'users.a.size must be null or a text as "1024x1024"'),
    ],
)
def test_limits_that_cannot_be_read_are_told(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        LimitTable.parse(text)
