"""What nobody finishes is freed, and nothing that lives is touched."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError

from services.checkpoints.checkpoint import Viewer
from services.checkpoints.storage import CheckpointStorage
from services.common.times import now
from tests.checkpoints.conftest import PART, Service, put_parts, safetensors
from tests.neighbours import Neighbours

LONG_AGO = timedelta(hours=2)


def age(service: Service, checkpoint_id: str) -> None:
    """Make the checkpoint's record look two hours old."""
    old = now() - LONG_AGO
    service.parts.database["checkpoints"].update_one({"_id": checkpoint_id}, {"$set": {"touched": old}})


@pytest.fixture()
def sweep(service: Service) -> Callable[..., int]:
    def run(before: timedelta = timedelta(hours=1)) -> int:
        deletion = service.parts.deletion
        return deletion.sweep(now() - before) + deletion.clear_leftovers()

    return run


def test_a_stalled_upload_is_freed_and_its_name_with_it(service: Service, sweep: Callable[..., int]) -> None:
    begun = service.begin(parts=2)["checkpoint"]
    age(service, begun["id"])
    sweep()
    assert service.leftovers(begun["id"]) == []
    assert service.begin(begun["name"][0])


def test_an_upload_whose_parts_still_arrive_is_left_alone(
    service: Service, sweep: Callable[..., int]
) -> None:
    uploaded = service.upload(safetensors(PART))
    age(service, uploaded.id)
    sweep()
    assert service.complete(uploaded).status_code == 200


def test_a_failed_import_is_forgotten_when_nobody_deletes_it(
    service: Service, sweep: Callable[..., int]
) -> None:
    body = {"checkpoint_type": "Lora", "urls": ["http://127.0.0.1/a.safetensors"]}
    checkpoint_id = service.call("POST", "/checkpoints", body).json["data"]["checkpoint"]["id"]
    service.parts.imports.run(checkpoint_id)
    sweep()
    params = service.call("GET", f"/checkpoints/{checkpoint_id}").json["data"]["checkpoint"]["params"]
    assert params["error"] == "URL 1 cannot be imported: 127.0.0.1 is not a public address"
    age(service, checkpoint_id)
    sweep()
    assert service.leftovers(checkpoint_id) == []


def test_what_is_active_or_disabled_never_stalls(service: Service, sweep: Callable[..., int]) -> None:
    active, disabled = service.active(), service.active()
    service.call("PUT", f"/checkpoints/{disabled.id}", {"status": "Disabled"})
    for one in (active, disabled):
        age(service, one.id)
    sweep()
    assert (service.status(active.id), service.status(disabled.id)) == ("Active", "Disabled")


def test_asking_for_the_uploads_counts_as_a_sign_of_life(service: Service, sweep: Callable[..., int]) -> None:
    begun = service.begin()
    checkpoint_id = begun["checkpoint"]["id"]
    age(service, checkpoint_id)
    service.call("GET", f"/checkpoints/{checkpoint_id}/uploads")
    sweep()
    assert service.status(checkpoint_id) == "Initial"


def test_what_s3_does_not_let_go_now_goes_with_the_next_sweep(
    service: Service, sweep: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    uploaded = service.active()

    def unreachable(*_: Any) -> None:
        raise EndpointConnectionError(endpoint_url="s3")

    with monkeypatch.context() as patch:
        patch.setattr(CheckpointStorage, "purge", unreachable)
        answer = service.call("DELETE", "/checkpoints", {"checkpoint_id_list": [uploaded.id]})
        assert answer.status_code == 204
        assert sweep() == 0
    assert service.call("GET", f"/checkpoints/{uploaded.id}").status_code == 404
    assert service.begin(uploaded.name)  # the name is free at once
    assert sweep() >= 1
    assert service.leftovers(uploaded.id) == []


def test_a_part_that_comes_after_the_deletion_is_refused(service: Service) -> None:
    begun = service.begin()
    ((_, urls),) = begun["s3PresignUrl"].items()
    service.call("DELETE", "/checkpoints", {"checkpoint_id_list": [begun["checkpoint"]["id"]]})
    with pytest.raises(AssertionError, match="NoSuchUpload"):
        put_parts(urls, [b"late"])


@pytest.mark.parametrize("question", ["jobs-using", "work-using"])  # of inference, of training
def test_what_a_job_or_training_needs_goes_when_it_has_ended(
    service: Service, others: Neighbours, monkeypatch: pytest.MonkeyPatch, question: str
) -> None:
    uploaded, needed = service.active(), set[str]()
    needed.add(uploaded.id)
    monkeypatch.setitem(
        others.answers, question, lambda asked: {"in_use": sorted(needed & set(asked["checkpoint_ids"]))}
    )
    answer = service.call("DELETE", "/checkpoints", {"checkpoint_id_list": [uploaded.id]})
    assert answer.status_code == 204
    assert service.call("GET", f"/checkpoints/{uploaded.id}").status_code == 404
    assert resolved(service, uploaded.name) == []  # no new job can have it
    assert service.begin(uploaded.name)  # its name is free
    service.parts.deletion.clear_leftovers()
    key = f"Lora/checkpoint/custom/{uploaded.id}/{uploaded.name}"
    assert service.parts.storage.find(key) is not None
    needed.clear()
    service.parts.deletion.clear_leftovers()
    assert service.leftovers(uploaded.id) == []


def resolved(service: Service, *names: str) -> list[str]:
    """The ids of the checkpoints that inference is told of."""
    body = {"username": "ann", "models": {"Lora": list(names)}}
    answer = service.call("POST", "/internal/resolve", body, service.keys.service())
    return [model["id"] for model in answer.json["models"]]


def test_what_a_job_has_just_been_told_of_stays_until_the_job_can_be_asked_for(service: Service) -> None:
    uploaded = service.active()
    assert resolved(service, uploaded.name) == [uploaded.id]
    service.call("DELETE", "/checkpoints", {"checkpoint_id_list": [uploaded.id]})
    service.parts.deletion.clear_leftovers()
    key = f"Lora/checkpoint/custom/{uploaded.id}/{uploaded.name}"
    assert service.parts.storage.find(key) is not None
    assert resolved(service, uploaded.name) == []
    service.parts.database["checkpoints"].update_one(
        {"_id": uploaded.id}, {"$set": {"promised_until": now() - LONG_AGO}}
    )
    service.parts.deletion.clear_leftovers()
    assert service.leftovers(uploaded.id) == []


def test_what_is_deleted_while_a_job_is_told_of_it_is_not_promised(service: Service) -> None:
    uploaded, repository = service.active(), service.parts.repository
    found = repository.find_usable(Viewer("ann"), {"Lora": [uploaded.name]})
    assert [one.id for one in found] == [uploaded.id]
    service.call("DELETE", "/checkpoints", {"checkpoint_id_list": [uploaded.id]})
    assert repository.promise(found, 60) == []
    assert service.leftovers(uploaded.id) == []


def test_a_promise_that_is_good_for_long_is_not_written_again(service: Service) -> None:
    uploaded, repository = service.active(), service.parts.repository

    def promised() -> Any:
        (found,) = repository.find_usable(Viewer("ann"), {"Lora": [uploaded.name]})
        (kept,) = repository.promise([found], 60)
        return kept.promised_until

    assert promised() == promised()


@pytest.mark.parametrize("silent", ["jobs-using", "work-using"])
def test_while_nobody_can_say_what_jobs_need_everything_stays(
    service: Service, others: Neighbours, monkeypatch: pytest.MonkeyPatch, silent: str
) -> None:
    uploaded, unfinished = service.active(), service.begin()["checkpoint"]["id"]
    with monkeypatch.context() as patch:
        patch.delitem(others.answers, silent)
        ids = [uploaded.id, unfinished]
        answer = service.call("DELETE", "/checkpoints", {"checkpoint_id_list": ids})
        assert answer.status_code == 204
        assert len(service.leftovers(uploaded.id)) == 2  # the object and the record
        assert service.leftovers(unfinished) == []  # no job can have it
    service.parts.deletion.clear_leftovers()
    assert service.leftovers(uploaded.id) == []
