"""Claims, leases and attempts of GPU workers."""

import requests

from tests.training.conftest import Service


def test_a_silent_worker_loses_its_work_and_the_next_goes_on_from_the_last_state(service: Service) -> None:
    training_id = service.started()
    service.claimed()
    for step in (5, 10):
        file = service.upload(training_id, f"state-{step}.state", f"after {step}".encode())
        assert service.work(f"jobs/{training_id}/saved", attempt=1, file=file, step=step).status_code == 204
    service.expire_lease(training_id)
    work = service.claimed("worker-2")
    assert work is not None
    assert (work["attempt"], work["state"]["step"]) == (2, 10)
    assert requests.get(work["state"]["url"], timeout=10).content == b"after 10"
    assert service.work(f"jobs/{training_id}/progress", attempt=1, step=11).status_code == 409
    late = service.work(f"jobs/{training_id}/uploads", attempt=1, files={"result.safetensors": 1})
    assert late.status_code == 409
    assert service.work(f"jobs/{training_id}/progress", "worker-2", attempt=2, step=11).status_code == 200
    keys = [key.rsplit("/", 1)[-1] for key in service.parts.storage.objects.keys_under("train/")]
    assert keys == ["state-10.state"]


def test_work_fails_after_three_failed_attempts(service: Service) -> None:
    training_id = service.started()
    for attempt in (1, 2, 3):
        work = service.claimed()
        assert work is not None
        assert work["attempt"] == attempt
        service.work(f"jobs/{training_id}/fail", attempt=attempt, kind="machine", message="it broke")
    shown = service.shown(training_id)
    assert (shown["job_status"], shown["error"]) == (
        "Fail",
        "it failed in 3 attempts, the last time: it broke",
    )
    assert service.claimed() is None


def test_work_that_is_given_back_counts_no_failure(service: Service) -> None:
    training_id = service.started()
    for attempt in range(1, 6):
        service.claimed()
        assert service.work(f"jobs/{training_id}/release", attempt=attempt).status_code == 204
    assert service.status(training_id) == "Pending"


def test_only_workers_of_the_asked_instance_type_take_it(service: Service) -> None:
    training_id = service.create(training={"training_instance_type": "ml.g5.xlarge"})
    service.call("PUT", f"/trainings/{training_id}/start")
    assert service.claimed(instance_type="local.cpu") is None
    assert service.claimed(instance_type="ml.g5.xlarge") is not None


def test_samples_are_shown_while_it_runs(service: Service) -> None:
    training_id = service.started()
    service.claimed()
    file = service.upload(training_id, "sample-50-0.png", b"picture")
    service.work(f"jobs/{training_id}/saved", attempt=1, file=file, step=50)
    (sample,) = service.shown(training_id)["samples"]
    assert (sample["step"], requests.get(sample["url"], timeout=10).content) == (50, b"picture")


def test_a_worker_speaks_for_itself_and_names_no_other_files(service: Service) -> None:
    training_id = service.started()
    service.claimed()
    other = service.keys.worker("worker-2")
    body = {"worker_id": "worker-1", "attempt": 1, "step": 1}
    answer = service.app.test_client().post(
        f"/internal/jobs/{training_id}/progress", json=body, headers=other
    )
    assert answer.status_code == 403
    bad = service.work(f"jobs/{training_id}/uploads", attempt=1, files={"../x.safetensors": 1})
    assert bad.status_code == 400


def test_a_stop_that_no_worker_lived_to_see_is_done_by_the_next(service: Service) -> None:
    training_id = service.started()
    service.claimed()
    file = service.upload(training_id, "state-5.state")
    service.work(f"jobs/{training_id}/saved", attempt=1, file=file, step=5)
    service.call("PUT", f"/trainings/{training_id}/stop")
    service.expire_lease(training_id)
    work = service.claimed("worker-2")
    assert work is not None
    assert service.work(f"jobs/{training_id}/progress", "worker-2", attempt=2, step=5).json["stop"] is True


def test_checkpoints_in_use_are_told_until_the_work_ends(service: Service) -> None:
    training_id = service.started()

    def in_use() -> list[str]:
        body, headers = (
            {"checkpoint_ids": ["id-shapes-v1.safetensors", "x"]},
            service.keys.service("checkpoints"),
        )
        answer = service.app.test_client().post("/internal/work-using", json=body, headers=headers)
        return list(answer.json["in_use"])

    assert in_use() == ["id-shapes-v1.safetensors"]
    service.claimed()
    service.work(f"jobs/{training_id}/fail", attempt=1, kind="request", message="x")
    assert in_use() == []
