"""Jobs of Async endpoints on SageMaker, from their start to their pictures."""

import io
import json

import pytest
import requests
from PIL import Image

from tests.inference.sagemaker.conftest import PARAMETERS, SageMakerService
from tests.sagemaker_runtime import wait_for


def test_a_job_is_computed_by_the_container_and_found_as_any_other(service: SageMakerService) -> None:
    job_id = service.started(PARAMETERS)
    service.submit()
    assert service.record(job_id)["lease"]["worker"] == "sagemaker:esd-async-one"
    job = service.finished(job_id)
    assert (job["status"], job["attempts"], job["image_names"]) == ("succeed", 1, ["image_0.png"])
    picture = Image.open(io.BytesIO(requests.get(job["img_presigned_urls"][0], timeout=10).content))
    assert (picture.size, "Seed: 7" in picture.text["parameters"]) == ((64, 64), True)
    (result,) = job["output_presigned_urls"]
    assert requests.get(result, timeout=10).json()["images"] == ["image_0.png"]
    bucket = service.context.store.bucket
    assert job["params"]["output_path"] == f"s3://{bucket}/sagemaker_output/{job_id}-1.out"
    answer = json.loads(service.context.store.read(f"sagemaker_output/{job_id}-1.out", 10_000) or b"")
    assert job["sagemakerRaw"].items() <= answer.items()
    times = [job["timeline"][name] for name in ("queued", "claimed", "first_step", "last_step", "fetchable")]
    assert None not in times and times == sorted(times)
    assert [entry["actor"] for entry in service.record(job_id)["history"]] == [
        "ann",
        "ann",
        "sagemaker:esd-async-one",
        "sagemaker:esd-async-one",
    ]


def test_nothing_but_the_results_is_left(service: SageMakerService) -> None:
    job_id = service.started(PARAMETERS)
    service.finished(job_id)
    assert service.objects(job_id) == [
        f"out/{job_id}/result/attempt-1/{job_id}_param.json",
        f"out/{job_id}/result/attempt-1/image_0.png",
        f"sagemaker_output/{job_id}-1.out",
        f"sagemaker_output/{job_id}.out",
        *service.parameters(job_id),
    ]
    assert service.invocations.count_documents({}) == 0
    assert service.delete("/inferences", {"inference_id_list": [job_id]}).status_code == 204
    assert service.objects(job_id) == []


def test_a_request_that_cannot_be_honoured_fails_at_once_with_the_containers_sentence(
    service: SageMakerService,
) -> None:
    job_id = service.started('{"prompt": "a", "cfg_scale": "much"}')
    job = service.finished(job_id)
    assert (job["status"], job["attempts"]) == ("failed", 1)
    assert job["error"] == "cfg_scale must be a number from 1 to 100, not 'much'"
    service.pick_up()
    assert service.objects(job_id) == service.parameters(job_id)


def test_a_failure_of_the_endpoint_is_tried_again(service: SageMakerService) -> None:
    service.runtime.faults.fail = 1
    job = service.finished(service.started(PARAMETERS))
    assert (job["status"], job["attempts"]) == ("succeed", 2)
    assert service.runtime.invoked == [f"{job['InferenceJobId']}-1", f"{job['InferenceJobId']}-2"]


def test_an_endpoint_that_fails_thrice_fails_the_job_with_what_it_said(service: SageMakerService) -> None:
    service.runtime.faults.fail = 3
    job = service.finished(service.started(PARAMETERS))
    assert (job["status"], job["attempts"]) == ("failed", 3)
    assert job["error"].startswith(
        "the job failed in 3 attempts: SageMaker reports: Received server error (500)"
    )


def test_a_lost_invocation_is_made_again_when_its_time_is_over(service: SageMakerService) -> None:
    service.runtime.faults.lose = 1
    job_id = service.started(PARAMETERS)
    service.submit()
    assert service.pick_up() == 1
    assert service.shown(job_id)["status"] == "inprogress"
    service.runtime._inside.clear()
    service.pass_time(job_id, "over_at")
    service.pick_up()
    (reason,) = service.record(job_id)["failures"]
    assert reason == "no answer came from the SageMaker endpoint within 1800 s"
    job = service.finished(job_id)
    assert (job["status"], job["attempts"]) == ("succeed", 2)


def test_the_late_result_of_an_attempt_that_is_over_is_ignored_and_removed(service: SageMakerService) -> None:
    service.runtime.faults.gate.clear()
    job_id = service.started(PARAMETERS)
    service.submit()
    service.expire_lease(job_id)
    service.context.running.requeue_expired()
    service.submit()
    service.runtime.faults.gate.set()
    job = service.finished(job_id)
    service.answered()
    service.pass_time(job_id)
    service.pick_up()
    assert (job["status"], job["attempts"]) == ("succeed", 2)
    assert not [key for key in service.objects(job_id) if "attempt-1" in key or f"{job_id}-1" in key]
    assert requests.get(job["img_presigned_urls"][0], timeout=10).status_code == 200
    service.pass_time(job_id, "until")
    service.pick_up()
    assert service.invocations.count_documents({}) == 0


def test_a_cancelled_job_stays_so_and_its_late_objects_are_removed(service: SageMakerService) -> None:
    service.runtime.faults.gate.clear()
    job_id = service.started(PARAMETERS)
    service.submit()
    assert service.put(f"/inferences/{job_id}/cancel").status_code == 200
    service.runtime.faults.gate.set()
    service.answered()
    assert [key for key in service.objects(job_id) if "image_0.png" in key]
    service.pick_up()
    assert service.shown(job_id)["status"] == "cancelled"
    assert service.objects(job_id) == service.parameters(job_id)


def test_what_comes_after_a_deletion_is_removed_and_forgotten(service: SageMakerService) -> None:
    service.runtime.faults.gate.clear()
    job_id = service.started(PARAMETERS)
    service.submit()
    assert service.delete("/inferences", {"inference_id_list": [job_id]}).status_code == 204
    service.runtime.faults.gate.set()
    service.answered()
    service.pick_up()
    assert service.objects(job_id) == []
    service.pass_time(job_id, "until")
    service.pick_up()
    assert service.invocations.count_documents({}) == 0


def test_an_invocation_that_runs_twice_gives_one_result(service: SageMakerService) -> None:
    service.runtime.faults.duplicate = 1
    job_id = service.started(PARAMETERS)
    job = service.finished(job_id)
    service.answered()
    assert (job["status"], job["attempts"]) == ("succeed", 1)
    assert [key for key in service.objects(job_id) if "image_" in key] == [
        f"out/{job_id}/result/attempt-1/image_0.png"
    ]


def test_only_as_many_are_submitted_as_the_instances_soon_compute_in_the_lines_order(
    service: SageMakerService,
) -> None:
    service.runtime.faults.gate.clear()
    flood = [service.started(PARAMETERS) for _ in range(6)]
    few = service.started(PARAMETERS, user="ben")
    service.submit()
    service.submit()
    assert service.runtime.invoked == [f"{flood[0]}-1", f"{few}-1"]
    assert service.shown(flood[1])["queue_position"] == 1
    service.runtime.faults.gate.set()
    for job_id in [*flood, few]:
        assert service.finished(job_id)["status"] == "succeed"
    assert service.runtime.most_at_once == 2


def test_an_endpoint_without_instances_is_given_jobs_to_wake_it(service: SageMakerService) -> None:
    service.instances = 0
    service.runtime.faults.gate.clear()
    ids = [service.started(PARAMETERS) for _ in range(3)]
    service.submit()
    assert service.runtime.invoked == [f"{job_id}-1" for job_id in ids[:2]]
    service.runtime.faults.gate.set()


@pytest.mark.parametrize("fault", ["throttle", "unavailable"])
def test_an_endpoint_that_takes_nothing_costs_no_attempt(service: SageMakerService, fault: str) -> None:
    setattr(service.runtime.faults, fault, 1)
    job_id = service.started(PARAMETERS)
    service.submit()
    assert service.shown(job_id)["queue_position"] == 1
    service.submit()
    assert service.runtime.invoked == []  # a pause
    service.end_pauses()
    assert service.finished(job_id)["status"] == "succeed"
    assert service.record(job_id)["failures"] == []


def test_an_answer_that_is_lost_on_its_way_gives_no_second_result(service: SageMakerService) -> None:
    service.runtime.faults.drop_connection = 1
    job_id = service.started(PARAMETERS)
    service.submit()
    service.end_pauses()
    job = service.finished(job_id)
    service.answered()
    assert job["status"] == "succeed"
    assert service.runtime.invoked == [f"{job_id}-1", f"{job_id}-2"]
    service.pass_time(job_id)
    service.pick_up()
    assert not [key for key in service.objects(job_id) if f"{job_id}-1" in key or "attempt-1" in key]


def test_an_endpoint_that_is_gone_fails_the_job_after_three_attempts_and_says_so(
    service: SageMakerService,
) -> None:
    service.runtime.endpoints.clear()
    job_id = service.started(PARAMETERS)
    for _ in range(3):
        service.submit()
        service.end_pauses()
    job = service.shown(job_id)
    assert (job["status"], job["attempts"]) == ("failed", 3)
    assert "SageMaker refused the job: Endpoint sm-async of account" in job["error"]


def test_an_answer_without_its_pictures_is_no_success(service: SageMakerService) -> None:
    service.runtime.faults.lose = 1
    job_id = service.started(PARAMETERS)
    service.submit()
    answer = {"id": job_id, "attempt": 1, "image_names": ["image_0.png"], "timings": {}}
    service.context.store.write(f"sagemaker_output/{job_id}-1.out", json.dumps(answer).encode())
    service.pick_up()
    service.runtime._inside.clear()
    (reason,) = service.record(job_id)["failures"]
    assert "is not in storage" in reason


def test_waiting_jobs_of_an_endpoint_that_is_created_wait(service: SageMakerService) -> None:
    candidates = service.others.answers["candidates"]

    def creating(body: dict) -> dict:
        found = candidates(body)
        return {"endpoints": [endpoint | {"status": "Creating"} for endpoint in (found or {})["endpoints"]]}

    service.others.answers["candidates"] = creating
    job_id = service.started(PARAMETERS)
    service.submit()
    assert service.shown(job_id)["queue_position"] == 1
    service.others.answers["candidates"] = candidates
    wait_for(lambda: service.finished(job_id)["status"] == "succeed")
