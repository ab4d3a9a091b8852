"""Jobs that have outlived the time that the deployment keeps them."""

from datetime import timedelta
from typing import Any

import pytest
import requests

from services.common.times import now
from services.inference.lifetimes import Lifetimes, days
from tests.inference.conftest import Service


def lifetimes(service: Service, results: float = 0, unstarted: float = 0) -> Lifetimes:
    return Lifetimes(service.context.jobs, service.context.deletion, results, unstarted)


def age(service: Service, job_id: str, **kept: float) -> None:
    """Let a job be as old as that."""
    past = now() - timedelta(**kept)
    jobs = service.context.database["jobs"]
    jobs.update_one({"_id": job_id}, [{"$set": {"created_at": past}}])
    jobs.update_one({"_id": job_id, "completed_at": {"$exists": True}}, {"$set": {"completed_at": past}})


def finished(service: Service) -> dict[str, Any]:
    """A job with a picture, as GET shows it."""
    service.started()
    job = service.claimed()
    urls = service.work(f"jobs/{job['id']}/uploads", attempt=1, files=["image_0.png"]).json["urls"]
    requests.put(urls["image_0.png"], data=b"picture", timeout=10).raise_for_status()
    service.work(f"jobs/{job['id']}/complete", attempt=1, images=["image_0.png"])
    return dict(service.get(f"/inferences/{job['id']}").json["data"])


def is_there(service: Service, job_id: str) -> bool:
    return bool(service.get(f"/inferences/{job_id}").status_code == 200)


def test_results_go_with_their_jobs_when_their_time_is_over(service: Service) -> None:
    old, young = finished(service), finished(service)
    age(service, old["InferenceJobId"], days=3)
    assert lifetimes(service, results=2).sweep() == 1
    assert not is_there(service, old["InferenceJobId"])
    assert requests.get(old["img_presigned_urls"][0], timeout=10).status_code == 404
    assert is_there(service, young["InferenceJobId"])
    assert requests.get(young["img_presigned_urls"][0], timeout=10).status_code == 200


@pytest.mark.parametrize("end", ["cancel", "fail"])
def test_jobs_without_pictures_go_as_well(service: Service, end: str) -> None:
    job_id = service.started()
    if end == "cancel":
        service.put(f"/inferences/{job_id}/cancel")
    else:
        service.claimed()
        service.work(f"jobs/{job_id}/fail", attempt=1, kind="request", message="no")
    age(service, job_id, days=3)
    assert lifetimes(service, results=2).sweep() == 1
    assert not is_there(service, job_id)


def test_what_waits_or_runs_stays_however_old(service: Service) -> None:
    waiting, running = service.started(), service.started()
    service.claimed()
    for job_id in (waiting, running):
        age(service, job_id, days=900)
    assert lifetimes(service, results=1, unstarted=1).sweep() == 0
    assert is_there(service, waiting)
    assert is_there(service, running)


def test_jobs_that_nobody_started_go_after_a_time_of_their_own(service: Service) -> None:
    old, young = service.prepared(), service.prepared()
    age(service, old, days=3)
    assert lifetimes(service, results=1).sweep() == 0
    assert lifetimes(service, unstarted=2).sweep() == 1
    assert (is_there(service, old), is_there(service, young)) == (False, True)
    assert service.put(f"/inferences/{old}/start").status_code == 404


def test_a_job_that_is_started_after_it_was_found_stays(service: Service) -> None:
    job_id = service.prepared()
    age(service, job_id, days=3)
    (found,) = service.context.jobs.unstarted_before(now())
    service.put(f"/inferences/{job_id}/start")
    assert service.context.jobs.hide_outlived(found, "inference") is None
    assert is_there(service, job_id)


def test_more_than_a_rounds_worth_goes_in_one_sweep(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.inference.repository.ROUND", 2)
    for job_id in [service.prepared() for _ in range(5)]:
        age(service, job_id, days=3)
    assert lifetimes(service, unstarted=2).sweep() == 5


@pytest.mark.parametrize("text", ["-1", "nan", "inf", "soon", "1e9"])
def test_what_is_no_number_of_days_is_told(text: str) -> None:
    with pytest.raises(ValueError):
        days(text)
