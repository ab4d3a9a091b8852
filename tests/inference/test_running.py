"""The life of a job between claim and end."""

import threading
from datetime import timedelta
from typing import Any

import pytest
import requests

from tests.inference.conftest import ENDPOINT, Service


def attempt_of(job: dict[str, Any]) -> dict[str, Any]:
    return {"attempt": job["attempt"]}


def status_of(service: Service, job_id: str) -> str:
    return str(service.get(f"/inferences/{job_id}").json["data"]["status"])


def test_a_claimed_job_brings_all_that_its_worker_needs(service: Service) -> None:
    job_id = service.started('{"prompt": "a red circle", "seed": 7}')
    job = service.claimed()
    assert (job["id"], job["attempt"], job["seed"], job["task_type"]) == (job_id, 1, 7, "txt2img")
    assert job["models"][0]["name"] == "shapes-v1.safetensors"
    assert requests.get(job["parameters_url"], timeout=10).json()["prompt"] == "a red circle"


def test_jobs_are_claimed_in_the_order_of_their_start(service: Service) -> None:
    ids = [service.started() for _ in range(4)]
    assert [service.claimed()["id"] for _ in ids] == ids


def test_a_flood_of_one_user_does_not_delay_the_others(service: Service) -> None:
    flood = [service.started() for _ in range(30)]
    few = [service.started(user="ben") for _ in range(5)]
    claimed = [service.claimed()["id"] for _ in flood + few]
    assert [claimed.index(job_id) for job_id in few] == [1, 3, 5, 7, 9]
    assert [job_id for job_id in claimed if job_id in flood] == flood


def test_the_place_in_line_is_the_order_of_claims(service: Service) -> None:
    ids = [service.started() for _ in range(4)] + [service.started(user="ben") for _ in range(2)]
    places = {service.get(f"/inferences/{job_id}").json["data"]["queue_position"]: job_id for job_id in ids}
    assert sorted(places) == [1, 2, 3, 4, 5, 6]
    assert [service.claimed()["id"] for _ in ids] == [places[place] for place in sorted(places)]


def test_a_worker_of_two_endpoints_takes_who_has_waited_longest(service: Service) -> None:
    first = service.started()
    second = service.started(inference_type="Async")
    service.context.database["jobs"].update_one({"_id": first}, {"$set": {"endpoint": "esd-async-two"}})
    endpoints = [ENDPOINT["name"], "esd-async-two"]
    claimed = [service.work("claim", endpoints=endpoints).json["jobs"][0]["id"] for _ in range(2)]
    assert claimed == [first, second]


def test_a_job_goes_to_one_of_many_workers_that_claim_at_once(service: Service) -> None:
    ids = {service.started() for _ in range(12)}
    app, claimed = service.client.application, []

    def work(name: str) -> None:
        body = {"worker_id": name, "endpoints": [ENDPOINT["name"]]}
        with app.test_client() as client:
            while jobs := client.post("/internal/claim", json=body, headers=service.keys.worker(name)).json[
                "jobs"
            ]:
                claimed.extend(job["id"] for job in jobs)

    threads = [threading.Thread(target=work, args=(f"w{number}",)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(claimed) == sorted(ids)


def test_no_job_is_claimed_that_would_only_wait(service: Service) -> None:
    for _ in range(6):
        service.started('{"prompt": "a red circle", "width": 64, "height": 64, "batch_size": 2}')
    sizes = []
    for pixels in (64 * 64 * 5, 1):
        jobs = service.work("claim", endpoints=[ENDPOINT["name"]], room=8, pixels=pixels).json["jobs"]
        sizes.append(len(jobs))
    assert sizes == [3, 1]


def test_room_is_filled_with_jobs_that_can_be_computed_together(service: Service) -> None:
    alike = [service.started('{"steps": 5}') for _ in range(3)]
    service.started('{"steps": 6}')
    jobs = service.work("claim", endpoints=[ENDPOINT["name"]], room=8).json["jobs"]
    assert [job["id"] for job in jobs] == alike


def test_a_random_seed_is_the_same_for_every_attempt(service: Service) -> None:
    job_id = service.started('{"seed": -1}')
    first = service.claimed()
    service.expire_lease(job_id)
    second = service.claimed("worker-2")
    assert (second["id"], second["attempt"], second["seed"]) == (job_id, 2, first["seed"])


def test_progress_is_seen_by_the_client_and_renews_the_lease(service: Service) -> None:
    job_id = service.started()
    job = service.claimed()
    service.expire_lease(job_id)
    report = {"step": 3, "steps": 20, "image": 0, "images": 1, "event": "first_step", "at": 1.0}
    assert service.work(f"jobs/{job_id}/progress", **attempt_of(job), **report).json["cancel"] is False
    assert service.context.running.requeue_expired() == 0
    shown = service.get(f"/inferences/{job_id}").json["data"]
    assert shown["progress"] == {"step": 3, "steps": 20, "image": 0, "images": 1}
    assert shown["timeline"]["first_step"]


def test_results_are_put_and_fetched_by_presigned_urls(service: Service) -> None:
    job_id = service.started()
    job = service.claimed()
    files = ["image_0.png", f"{job_id}_param.json"]
    urls = service.work(f"jobs/{job_id}/uploads", **attempt_of(job), files=files).json["urls"]
    for name in files:
        requests.put(urls[name], data=name, timeout=10).raise_for_status()
    done = service.work(f"jobs/{job_id}/complete", **attempt_of(job), images=["image_0.png"])
    assert done.status_code == 204
    shown = service.get(f"/inferences/{job_id}").json["data"]
    assert shown["status"] == "succeed"
    assert shown["image_names"] == ["image_0.png"]
    assert requests.get(shown["img_presigned_urls"][0], timeout=10).text == "image_0.png"
    assert requests.get(shown["output_presigned_urls"][0], timeout=10).text == f"{job_id}_param.json"
    assert shown["sagemakerRaw"]["image_names"] == ["image_0.png"]
    assert shown["timeline"]["fetchable"] == shown["completeTime"]


@pytest.mark.parametrize("name", ["../x", "image_0.png/..", "other_param.json", "image_x.png"])
def test_a_worker_puts_nothing_but_results(service: Service, name: str) -> None:
    service.started()
    job = service.claimed()
    refused = service.work(f"jobs/{job['id']}/uploads", **attempt_of(job), files=[name])
    assert refused.status_code == 400


def test_a_late_attempt_changes_nothing(service: Service) -> None:
    job_id = service.started()
    late = service.claimed("worker-1")
    service.expire_lease(job_id)
    current = service.claimed("worker-2")
    for call, body in (
        ("progress", {}),
        ("uploads", {"files": ["image_0.png"]}),
        ("complete", {"images": ["image_0.png"]}),
        ("fail", {"kind": "request", "message": "late"}),
        ("release", {}),
    ):
        assert service.work(f"jobs/{job_id}/{call}", **attempt_of(late), **body).status_code == 409
    assert status_of(service, job_id) == "inprogress"
    done = service.work(f"jobs/{job_id}/complete", "worker-2", **attempt_of(current), images=["image_0.png"])
    assert done.status_code == 204
    assert (
        service.work(f"jobs/{job_id}/complete", **attempt_of(late), images=["image_0.png"]).status_code == 409
    )


@pytest.mark.parametrize("attempt", [1, 2])
def test_a_worker_cannot_take_over_what_another_holds(service: Service, attempt: int) -> None:
    """Under its own name and with a true token, as one whose secret was stolen would."""
    job_id = service.started()
    service.claimed("worker-1")
    before = service.context.database["jobs"].find_one({"_id": job_id})
    for call, body in (
        ("progress", {"step": 19, "steps": 20}),
        ("preview", {"picture": "iVBORw0KGgo="}),
        ("uploads", {"files": ["image_0.png"]}),
        ("complete", {"images": ["image_0.png"]}),
        ("fail", {"kind": "request", "message": "no"}),
        ("release", {}),
    ):
        refused = service.work(f"jobs/{job_id}/{call}", "worker-2", attempt=attempt, **body)
        assert refused.status_code == 409, call
    assert service.context.database["jobs"].find_one({"_id": job_id}) == before
    assert service.context.storage._store.read(f"sagemaker_output/{job_id}.out", 1) is None


def test_what_is_kept_of_a_workers_timings_is_bounded(service: Service) -> None:
    job_id = service.started()
    service.claimed()
    timings = {"claimed_at": 1.5, "uploaded_at": "now", "$set": {}} | {f"t{n}": n for n in range(5000)}
    service.work(f"jobs/{job_id}/complete", attempt=1, images=["image_0.png"], timings=timings)
    record = service.context.database["jobs"].find_one({"_id": job_id})
    assert record is not None
    assert (record["status"], record["timings"]) == ("succeed", {"claimed_at": 1.5})


def test_the_requests_fault_fails_the_job_at_once(service: Service) -> None:
    job_id = service.started()
    service.work(
        f"jobs/{job_id}/fail", **attempt_of(service.claimed()), kind="request", message="no such sampler"
    )
    shown = service.get(f"/inferences/{job_id}").json["data"]
    assert (shown["status"], shown["error"]) == ("failed", "no such sampler")


def test_a_poison_job_fails_after_three_attempts_with_the_reason_of_each(service: Service) -> None:
    job_id = service.started()
    service.work(
        f"jobs/{job_id}/fail", **attempt_of(service.claimed()), kind="passing", message="S3 was away"
    )
    service.work(f"jobs/{job_id}/fail", **attempt_of(service.claimed()), kind="machine", message="$cuda died")
    service.claimed()
    service.expire_lease(job_id)
    assert service.context.running.requeue_expired() == 1
    shown = service.get(f"/inferences/{job_id}").json["data"]
    assert shown["status"] == "failed"
    assert shown["error"] == (
        "the job failed in 3 attempts: S3 was away; $cuda died; worker worker-1 went silent"
    )


def test_a_job_that_is_given_back_keeps_its_place_and_its_attempts(service: Service) -> None:
    first, _ = service.started(), service.started()
    for _ in range(5):
        job = service.claimed()
        assert job["id"] == first
        assert service.work(f"jobs/{first}/release", **attempt_of(job)).status_code == 204
    assert status_of(service, first) == "inprogress"


def test_a_deleted_job_ends_its_attempt(service: Service) -> None:
    job_id = service.started()
    job = service.claimed()
    service.delete("/inferences", {"inference_id_list": [job_id]})
    assert service.work(f"jobs/{job_id}/progress", **attempt_of(job)).status_code == 409
    assert service.context.deletion.sweep() == 0  # its worker might still put something
    service.context.database["jobs"].update_one(
        {"_id": job_id}, [{"$set": {"lease.expires_at": {"$subtract": ["$$NOW", 3_600_000]}}}]
    )
    assert service.context.deletion.sweep() == 1


def test_a_worker_speaks_for_itself_only(service: Service) -> None:
    job_id = service.started()
    job = service.claimed("worker-1")
    body = {"worker_id": "worker-1", "attempt": job["attempt"]}
    refused = service.client.post(
        f"/internal/jobs/{job_id}/release", json=body, headers=service.keys.worker("worker-2")
    )
    assert refused.status_code == 403


@pytest.mark.parametrize("route", ["claim", "upcoming"])
@pytest.mark.parametrize("who", ["user", "service", "nobody"])
def test_workers_routes_are_for_workers(service: Service, who: str, route: str) -> None:
    headers = {"user": service.keys.user(), "service": service.keys.service(), "nobody": {}}[who]
    body = {"worker_id": "w", "endpoints": []}
    refused = service.client.post(f"/internal/{route}", json=body, headers=headers)
    assert refused.status_code == 401


def test_jobs_move_when_their_endpoint_is_deleted(service: Service) -> None:
    job_id = service.started()
    other = ENDPOINT | {"id": "e9", "name": "esd-async-nine"}
    gone = {"name": ENDPOINT["name"], "roles": ["artists"], "endpoint_type": "Async"}
    service.others.answers["candidates"] = lambda _: {"endpoints": [other]}
    moved = service.client.post("/internal/endpoint-deleted", json=gone, headers=service.keys.service())
    assert moved.status_code == 204
    assert service.work("claim", endpoints=["esd-async-nine"]).json["jobs"][0]["id"] == job_id


def test_jobs_fail_when_no_endpoint_is_left(service: Service) -> None:
    job_id = service.started()
    gone = {"name": ENDPOINT["name"], "roles": ["artists"], "endpoint_type": "Async"}
    service.others.answers["candidates"] = lambda _: {"endpoints": []}
    service.client.post("/internal/endpoint-deleted", json=gone, headers=service.keys.service())
    shown = service.get(f"/inferences/{job_id}").json["data"]
    assert shown["status"] == "failed"
    assert "esd-async-one was deleted" in shown["error"]


def test_a_checkpoint_is_in_use_while_a_job_needs_it(service: Service) -> None:
    def in_use() -> list[str]:
        body = {"checkpoint_ids": ["c1", "c2"]}
        answer = service.client.post("/internal/jobs-using", json=body, headers=service.keys.service())
        return list(answer.json["in_use"])

    job_id = service.started()
    assert in_use() == ["c1"]
    service.work(f"jobs/{job_id}/fail", **attempt_of(service.claimed()), kind="request", message="no")
    assert in_use() == []


def test_a_job_that_nobody_starts_keeps_its_checkpoint_for_an_hour(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.create()
    body = {"checkpoint_ids": ["c1"]}
    headers = service.keys.service()
    assert service.client.post("/internal/jobs-using", json=body, headers=headers).json["in_use"] == ["c1"]
    monkeypatch.setattr("services.inference.repository.STARTED_WITHIN", timedelta(0))
    assert service.client.post("/internal/jobs-using", json=body, headers=headers).json["in_use"] == []
