"""Jobs of Real-time endpoints on SageMaker: the start waits for the container."""

import threading

import pytest
import requests

from tests.inference.sagemaker.conftest import PARAMETERS, SageMakerService
from tests.sagemaker_runtime import wait_for


def test_the_start_answers_with_the_finished_job(service: SageMakerService) -> None:
    answer, job_id = service.realtime()
    assert answer.status_code == 200, answer.json
    job = answer.json["data"]
    assert (job["InferenceJobId"], job["status"], job["attempts"]) == (job_id, "succeed", 1)
    assert requests.get(job["img_presigned_urls"][0], timeout=10).content.startswith(b"\x89PNG")
    assert service.record(job_id)["history"][-1]["actor"] == "sagemaker:esd-real-time-one"
    wait_for(lambda: service.invocations.count_documents({}) == 0)


def test_a_request_fault_is_the_answer(service: SageMakerService) -> None:
    answer, _ = service.realtime('{"prompt": "a", "cfg_scale": "much"}')
    assert (answer.status_code, answer.json["data"]["status"]) == (200, "failed")
    assert answer.json["data"]["error"] == "cfg_scale must be a number from 1 to 100, not 'much'"


@pytest.mark.parametrize("fault", ["fail", "drop_connection"])
def test_an_invocation_that_fails_is_made_again_while_the_start_waits(
    service: SageMakerService, fault: str
) -> None:
    setattr(service.runtime.faults, fault, 1)
    answer, _ = service.realtime()
    assert (answer.json["data"]["status"], answer.json["data"]["attempts"]) == ("succeed", 2)


def test_a_throttled_invocation_waits_in_line_and_is_made_by_the_background_work(
    service: SageMakerService,
) -> None:
    service.runtime.faults.throttle = 1
    answers = []
    thread = threading.Thread(target=lambda: answers.append(service.realtime()))
    thread.start()
    paused = service.context.database["sagemaker_lines"]
    wait_for(lambda: paused.count_documents({"paused_until": {"$exists": True}}))
    service.end_pauses()
    service.submit()
    thread.join()
    ((answer, job_id),) = answers
    assert answer.json["data"]["status"] == "succeed"
    assert service.record(job_id)["failures"] == []


def test_jobs_of_many_users_are_invoked_one_for_each_instance_at_a_time(service: SageMakerService) -> None:
    answers = []

    def start() -> None:
        answers.append(service.realtime()[0])

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answer.json["data"]["status"] for answer in answers] == ["succeed"] * 4
    assert service.runtime.most_at_once == 1


def test_the_job_goes_on_when_the_wait_is_over(
    service: SageMakerService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service.context.start, "wait_seconds", 0.5)
    service.runtime.faults.gate.clear()
    answer, job_id = service.realtime()
    assert answer.status_code == 504
    service.runtime.faults.gate.set()
    wait_for(lambda: service.shown(job_id)["status"] == "succeed")


def test_a_cancelled_job_ends_the_wait_and_its_late_pictures_are_removed(service: SageMakerService) -> None:
    service.runtime.faults.gate.clear()
    answers = []
    thread = threading.Thread(target=lambda: answers.append(service.realtime()))
    thread.start()
    wait_for(lambda: service.runtime.at_sagemaker)
    job_id = service.runtime.invoked[0].removesuffix("-1")
    assert service.put(f"/inferences/{job_id}/cancel").status_code == 200
    thread.join()
    assert answers[0][0].json["data"]["status"] == "cancelled"
    service.runtime.faults.gate.set()
    service.answered()
    wait_for(lambda: service.objects(job_id) == service.parameters(job_id))


def test_a_process_that_dies_while_it_waits_loses_no_job(service: SageMakerService) -> None:
    """The thread that waits is gone: its lease ends, and the next attempt makes the pictures."""
    job = service.create(inference_type="Real-time")
    requests.put(job["api_params_s3_upload_url"], data=PARAMETERS, timeout=10).raise_for_status()
    created = service.context.jobs.find(job["id"], None)
    assert created is not None
    service.context.start.start(created, "ann")
    assert service.context.running.take("sagemaker:esd-real-time-one", "esd-real-time-one")
    service.expire_lease(job["id"])
    service.context.running.requeue_expired()
    assert service.finished(job["id"])["attempts"] == 2
    assert service.shown(job["id"])["status"] == "succeed"
