"""What clients see of inference jobs."""

import threading
from typing import Any

import pytest
import requests

from services.common.s3 import ObjectStore
from tests.inference.conftest import ENDPOINT, WANTED, Service

NO_RIGHTS: dict[str, Any] = {"permissions": ()}
ORDINARY: dict[str, Any] = {"permissions": ("inference:create", "inference:list", "inference:delete")}


def test_a_created_job_tells_where_its_parameters_go(service: Service) -> None:
    job = service.create()
    assert job["type"] == "txt2img"
    assert job["api_params_s3_location"].endswith(f"/txt2img/infer_v2/{job['id']}/api_param.json")
    assert job["models"] == [{"id": "c1", "name": ["shapes-v1.safetensors"], "type": "Stable-diffusion"}]
    put = requests.put(job["api_params_s3_upload_url"], data="{}", timeout=10)
    assert put.status_code == 200


@pytest.mark.parametrize("name", ["Automatic", "None"])
def test_the_built_in_vaes_always_exist(service: Service, name: str) -> None:
    job = service.create(models=WANTED["models"] | {"VAE": [name]})
    assert {"id": "VAE", "name": [name], "type": "VAE"} in job["models"]
    shown = service.get(f"/inferences/{job['id']}").json["data"]
    assert shown["params"]["used_models"]["VAE"][0]["s3"] == "None"


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("[]", "Invalid request body"),
        ("{", "Invalid request body"),
        ("{}", 'object has missing required properties (["inference_type","models","task_type","user_id"])'),
    ],
)
def test_a_wrong_body_is_told(service: Service, body: str, sentence: str) -> None:
    response = service.client.post("/inferences", data=body, headers=service.keys.user())
    assert (response.status_code, response.json["message"]) == (400, sentence)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"user_id": 7}, "instance type (integer) does not match any allowed primitive type"),
        ({"task_type": "paint"}, 'instance value ("paint") not found in enum'),
        ({"inference_type": "Serverless"}, 'instance value ("Serverless") not found in enum'),
        ({"models": []}, "instance type (array) does not match any allowed primitive type"),
        ({"models": {"Stable-diffusion": "x"}}, "instance type (string) does not match"),
        ({"models": {"$where": ["x"]}}, "not found in enum"),
        ({"filters": 3}, "instance type (integer) does not match"),
    ],
)
def test_a_wrong_field_is_told(service: Service, change: dict[str, Any], part: str) -> None:
    response = service.post("/inferences", WANTED | change)
    assert response.status_code == 400
    assert part in response.json["message"]
    assert response.json["errors"]


def test_every_unknown_model_is_named(service: Service) -> None:
    response = service.post("/inferences", WANTED | {"models": {"Lora": ["a.safetensors", "b.safetensors"]}})
    assert response.status_code == 400
    assert "checkpoint with name a.safetensors, type Lora is not found" in response.json["message"]
    assert "checkpoint with name b.safetensors, type Lora is not found" in response.json["message"]


def test_a_user_without_endpoint_is_told(service: Service) -> None:
    response = service.post("/inferences", WANTED, roles=("nobody",))
    assert response.status_code == 400
    assert response.json["message"] == 'no available Async endpoints for user "ann"'


def test_an_unknown_endpoint_is_told(service: Service) -> None:
    response = service.post("/inferences", WANTED | {"sagemaker_endpoint_name": "esd-async-nowhere"})
    assert response.status_code == 400
    assert response.json["message"] == 'endpoint "esd-async-nowhere" is not available for user "ann"'


def test_only_those_who_may_act_for_others_create_for_them(service: Service) -> None:
    refused = service.post("/inferences", WANTED | {"user_id": "ben"}, **ORDINARY)
    assert refused.status_code == 403
    made = service.post("/inferences", WANTED | {"user_id": "ben"})
    assert made.status_code == 201
    job_id = made.json["data"]["inference"]["id"]
    assert service.get(f"/inferences/{job_id}", username="ben", **ORDINARY).status_code == 200
    unknown = service.post("/inferences", WANTED | {"user_id": "zoe"})
    assert (unknown.status_code, unknown.json["message"]) == (400, 'user: "zoe" not exist')


def test_shape_is_checked_before_rights(service: Service) -> None:
    assert service.post("/inferences", {}, **NO_RIGHTS).status_code == 400
    assert service.post("/inferences", WANTED, **NO_RIGHTS).status_code == 403
    assert service.client.post("/inferences", json={}).status_code == 401


def test_a_started_job_waits_in_line_and_starts_only_once(service: Service) -> None:
    first, second = service.started(), service.started()
    assert service.get(f"/inferences/{second}").json["data"]["queue_position"] == 2
    again = service.put(f"/inferences/{first}/start")
    assert again.status_code == 202
    assert again.json["data"]["inference"] == {
        "inference_id": first,
        "status": "inprogress",
        "endpoint_name": ENDPOINT["name"],
        "output_path": f"s3://{service.context.config.s3.bucket}/sagemaker_output/{first}.out",
    }
    assert service.context.line.backlog([ENDPOINT["name"]]) == {
        ENDPOINT["name"]: {"waiting": 2, "running": 0}
    }


def test_two_starts_at_once_start_once(service: Service) -> None:
    job = service.create()
    requests.put(job["api_params_s3_upload_url"], data="{}", timeout=10)
    app, answers = service.client.application, []

    def start() -> None:
        with app.test_client() as client:
            answers.append(
                client.put(f"/inferences/{job['id']}/start", headers=service.keys.user()).status_code
            )

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [202] * 8
    history = service.context.jobs.find(job["id"], None)["history"]
    assert [entry["status"] for entry in history] == ["created", "queued"]


def test_parameters_that_were_never_uploaded_are_told(service: Service) -> None:
    response = service.put(f"/inferences/{service.create()['id']}/start")
    assert response.status_code == 400
    assert "not uploaded" in response.json["message"]


@pytest.mark.parametrize(
    ("parameters", "part"),
    [
        ("not json", "not a JSON object"),
        ("[" * 100_000, "not a JSON object"),
        ("[1]", "not a JSON object"),
        ('{"width": 1e9}', "width must be between 64 and 2048, not 1000000000.0"),
        ('{"width": "wide"}', 'width must be a whole number, not "wide"'),
        ('{"width": "32"}', 'width must be between 64 and 2048, not "32"'),
        ('{"height": Infinity}', "height must be a whole number, not inf"),
        ('{"height": NaN}', "height must be a whole number, not nan"),
        ('{"batch_size": 1000000}', "batch_size must be between 1 and 16"),
        ('{"n_iter": 0}', "n_iter must be between 1 and 64"),
        ('{"batch_size": 16, "n_iter": 64}', "makes 1024 images"),
        ('{"steps": true}', "steps must be a whole number, not True"),
        ('{"steps": 1' + "0" * 400 + "}", "steps must be between 1 and 150"),
        ('{"seed": "x"}', "seed must be a whole number"),
        ('{"seed": -5}', "seed must be -1 (random) or between"),
    ],
)
def test_absurd_parameters_are_refused_and_can_be_mended(
    service: Service, parameters: str, part: str
) -> None:
    job = service.create()
    requests.put(job["api_params_s3_upload_url"], data=parameters, timeout=10)
    refused = service.put(f"/inferences/{job['id']}/start")
    assert refused.status_code == 400
    assert part in refused.json["message"]
    requests.put(job["api_params_s3_upload_url"], data='{"s_tmax": Infinity}', timeout=10)
    assert service.put(f"/inferences/{job['id']}/start").status_code == 202


def test_a_txt2img_job_needs_a_checkpoint(service: Service) -> None:
    job = service.create(models={})
    refused = service.put(f"/inferences/{job['id']}/start")
    assert refused.status_code == 400
    assert "Stable-diffusion" in refused.json["message"]


def test_parameters_may_come_with_the_creation(service: Service) -> None:
    by_text = service.post("/inferences", WANTED | {"payload_string": '{"prompt": "a star"}'})
    assert by_text.status_code == 202, by_text.json
    by_members = service.post(
        "/inferences", {"task_type": "txt2img", "models": WANTED["models"], "prompt": "a star", "steps": 3}
    )
    assert by_members.status_code == 202, by_members.json
    job = service.context.jobs.find(by_members.json["data"]["inference"]["inference_id"], None)
    assert (job["user"], job["steps"]) == ("ann", 3)
    broken = service.post("/inferences", WANTED | {"payload_string": "{"})
    assert (broken.status_code, broken.json["message"]) == (400, "payload_string must be valid json string")


def test_a_repeated_creation_with_the_same_key_creates_once(service: Service) -> None:
    app, ids = service.client.application, []

    def create(user: str = "ann", key: str = "order-1") -> None:
        headers = service.keys.user(user) | {"Idempotency-Key": key}
        with app.test_client() as client:
            response = client.post("/inferences", json=WANTED | {"user_id": user}, headers=headers)
            ids.append(response.json["data"]["inference"]["id"])

    threads = [threading.Thread(target=create) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(ids)) == 1
    create(key="order-2")
    create(user="ben")
    assert len(set(ids)) == 3
    # The key is forgotten after a day, and with the job.
    service.context.database["jobs"].update_one(
        {"_id": ids[0]}, [{"$set": {"created_at": {"$subtract": ["$$NOW", 25 * 3_600_000]}}}]
    )
    create()
    assert len(set(ids)) == 4
    service.delete("/inferences", {"inference_id_list": [ids[-1]]})
    create()
    assert len(set(ids)) == 5


def test_nobody_sees_or_changes_the_jobs_of_others(service: Service) -> None:
    job_id = service.started()
    stranger = {"username": "eve", **ORDINARY}
    sentence = f"inference with id {job_id} not found"
    for response in (
        service.get(f"/inferences/{job_id}", **stranger),
        service.put(f"/inferences/{job_id}/start", **stranger),
        service.put(f"/inferences/{job_id}/cancel", **stranger),
    ):
        assert (response.status_code, response.json["message"]) == (404, sentence)
    assert service.get("/inferences", **stranger).json["data"]["inferences"] == []
    assert service.delete("/inferences", {"inference_id_list": [job_id]}, **stranger).status_code == 204
    assert service.get(f"/inferences/{job_id}").status_code == 200


def test_lists_go_page_by_page_newest_first(service: Service) -> None:
    ids = [service.create()["id"] for _ in range(5)]
    seen: list[str] = []
    key = ""
    while key is not None:
        data = service.get(f"/inferences?limit=2&last_evaluated_key={key}").json["data"]
        seen += [job["InferenceJobId"] for job in data["inferences"]]
        key = data["last_evaluated_key"]
    assert sorted(seen) == sorted(ids)
    assert len(seen) == 5
    created = [service.context.jobs.find(job_id, None)["created_at"] for job_id in seen]
    assert created == sorted(created, reverse=True)


def test_lists_are_filtered_by_what_clients_see(service: Service) -> None:
    waiting, idle = service.started(), service.create()["id"]
    by_status = service.get("/inferences?status=inprogress").json["data"]["inferences"]
    assert [job["InferenceJobId"] for job in by_status] == [waiting]
    assert [
        job["InferenceJobId"] for job in service.get("/inferences?status=created").json["data"]["inferences"]
    ] == [idle]
    assert service.get("/inferences?task_type=rembg").json["data"]["inferences"] == []


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=1&limit=2", "limit=x", "last_evaluated_key=!!", "status=lost"]
)
def test_a_wrong_query_is_told(service: Service, query: str) -> None:
    assert service.get(f"/inferences?{query}").status_code == 400


def test_a_cancelled_job_is_never_claimed(service: Service) -> None:
    job_id = service.started()
    assert service.put(f"/inferences/{job_id}/cancel").json["data"]["status"] == "cancelled"
    assert service.work("claim", endpoints=[ENDPOINT["name"]]).json["jobs"] == []
    assert service.put(f"/inferences/{job_id}/cancel").status_code == 409
    assert service.put(f"/inferences/{job_id}/start").status_code == 409


def test_deleting_removes_every_object(service: Service) -> None:
    job_id = service.started()
    store = ObjectStore(service.context.config.s3)
    store.write(f"out/{job_id}/result/image_0.png", b"x")
    response = service.delete("/inferences", {"inference_id_list": [job_id, "absent"]})
    assert (response.status_code, response.data) == (204, b"")
    assert service.get(f"/inferences/{job_id}").status_code == 404
    assert [key for key in store.keys_under("") if job_id in key] == []


def test_many_are_deleted_in_one_call(service: Service) -> None:
    ids = [service.prepared() for _ in range(20)]
    assert service.delete("/inferences", {"inference_id_list": [*ids, "absent"]}).status_code == 204
    assert service.get("/inferences").json["data"]["inferences"] == []
    store = service.context.storage._store
    assert [key for key in store.keys_under("") if any(job_id in key for job_id in ids)] == []


def test_a_realtime_start_waits_for_the_pictures(service: Service) -> None:
    job = service.create(inference_type="Real-time")
    requests.put(job["api_params_s3_upload_url"], data="{}", timeout=10)
    app = service.client.application

    def finish() -> None:
        with app.test_client() as client:
            worker = service.keys.worker("w")
            jobs: list[dict[str, Any]] = []
            while not jobs:
                body = {"worker_id": "w", "endpoints": ["esd-real-time-one"]}
                jobs = client.post("/internal/claim", json=body, headers=worker).json["jobs"]
            done = {"worker_id": "w", "attempt": 1, "images": ["image_0.png"]}
            client.post(f"/internal/jobs/{jobs[0]['id']}/complete", json=done, headers=worker)

    thread = threading.Thread(target=finish)
    thread.start()
    response = service.put(f"/inferences/{job['id']}/start")
    thread.join()
    assert response.status_code == 200
    assert response.json["data"]["status"] == "succeed"
    assert len(response.json["data"]["img_presigned_urls"]) == 1


def test_a_realtime_job_that_takes_too_long_goes_on(service: Service) -> None:
    job = service.create(inference_type="Real-time")
    requests.put(job["api_params_s3_upload_url"], data="{}", timeout=10)
    response = service.put(f"/inferences/{job['id']}/start")
    assert response.status_code == 504
    assert service.get(f"/inferences/{job['id']}").json["data"]["status"] == "inprogress"


def test_a_service_that_does_not_answer_is_told(service: Service) -> None:
    service.others.answers.pop("resolve")
    response = service.post("/inferences", WANTED)
    assert response.status_code == 503
    assert response.headers["Retry-After"]
