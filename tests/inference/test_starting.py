"""A start: what was checked is what is computed."""

import json
from typing import Any

import pytest
import requests

from tests.inference.conftest import WANTED, Service


def computed(job: dict[str, Any]) -> dict[str, Any]:
    """The parameters as a worker fetches them."""
    answer = requests.get(job["parameters_url"], timeout=10)
    answer.raise_for_status()
    return dict(answer.json())


def test_parameters_uploaded_after_the_start_are_not_computed(service: Service) -> None:
    """The URL for the upload outlives the start: whoever is limited could else ask for more afterwards."""
    job = service.create()
    for steps in (5, 150):
        requests.put(job["api_params_s3_upload_url"], data=json.dumps({"steps": steps}), timeout=10)
        assert service.put(f"/inferences/{job['id']}/start").status_code == 202
    assert computed(service.claimed())["steps"] == 5


def test_a_start_that_is_refused_changes_nothing_of_one_that_was_not(service: Service) -> None:
    """Two starts at once: the second one's parameters were uploaded after the first had read its own."""
    job = service.create()
    url = job["api_params_s3_upload_url"]
    requests.put(url, data='{"steps": 5}', timeout=10)
    before = service.context.jobs.find(job["id"], None)
    assert before is not None
    assert service.put(f"/inferences/{job['id']}/start").status_code == 202
    requests.put(url, data='{"steps": 7}', timeout=10)
    late = service.context.start.start(before, "ann")
    assert late["steps"] == 5
    assert computed(service.claimed())["steps"] == 5


def test_a_repeated_call_with_other_parameters_leaves_the_first_ones(service: Service) -> None:
    answers = []
    for steps in (5, 7):
        headers = service.keys.user() | {"Idempotency-Key": "one"}
        body = WANTED | {"payload_string": json.dumps({"steps": steps})}
        answers.append(service.client.post("/inferences", json=body, headers=headers).json["data"])
    assert answers[0] == answers[1]
    job_id = answers[0]["inference"]["inference_id"]
    shown = service.get(f"/inferences/{job_id}").json["data"]["params"]["input_body_presign_url"]
    assert requests.get(shown, timeout=10).json() == {"steps": 5}
    assert computed(service.claimed())["steps"] == 5


def test_one_users_key_says_nothing_of_anothers_job(service: Service) -> None:
    ids = []
    for user in ("ann", "ben"):
        headers = service.keys.user(username=user) | {"Idempotency-Key": "the same"}
        body = WANTED | {"user_id": user}
        ids.append(service.client.post("/inferences", json=body, headers=headers).json["data"]["inference"])
    assert ids[0]["id"] != ids[1]["id"]


@pytest.mark.parametrize("name", ["sampler_name", "scheduler", "cfg_scale"])
def test_a_giant_value_is_no_giant_record(service: Service, name: str) -> None:
    job_id = service.started(json.dumps({name: "x" * 17_000_000}))
    record = service.context.database["jobs"].find_one({"_id": job_id})
    assert record is not None
    assert len(record["batch_key"]) == 64
    assert service.claimed()["id"] == job_id


@pytest.mark.parametrize(
    "body",
    [
        "[" * 100_000,
        '{"a":' * 100_000,
        '{"steps": ' + "9" * 5_000 + "}",
        '{"steps": 1e999}',
        "{" + " " * 10**6,
    ],
    ids=["nested lists", "nested objects", "a giant number", "infinity", "cut off"],
)
def test_no_text_of_parameters_breaks_the_service(service: Service, body: str) -> None:
    job_id = service.prepared(body)
    answer = service.put(f"/inferences/{job_id}/start")
    assert answer.status_code == 400, answer.json
    inline = service.post("/inferences", WANTED | {"payload_string": body})
    assert inline.status_code == 400, inline.json


def test_filters_are_kept_as_they_came_and_small(service: Service) -> None:
    filters = {"createTime": {"$gt": "x"}, "a.b": [1, None], "$where": "1"}
    job_id = service.create(filters=filters)["id"]
    record = service.context.jobs.find(job_id, None)
    assert record is not None
    assert record["filters"] == filters
    refused = service.post("/inferences", WANTED | {"filters": {"a": "x" * 20_000}})
    assert (refused.status_code, list(refused.json["errors"])) == (400, ["filters"])
