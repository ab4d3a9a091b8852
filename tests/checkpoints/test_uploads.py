"""Uploads when several act at once, and when processes die in the middle."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from werkzeug.test import TestResponse

from services.checkpoints import leases
from services.checkpoints.storage import CheckpointStorage
from tests.checkpoints.conftest import PART, Service, Uploaded, put_parts, safetensors, unique


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """The outcomes of calls that begin together."""
    gate = threading.Barrier(len(calls))

    def run(call: Callable[[], Any]) -> Any:
        gate.wait()
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


def test_of_ten_that_claim_a_name_at_once_one_gets_it(service: Service) -> None:
    name = unique()
    body = {"checkpoint_type": "Lora", "filenames": [{"filename": name, "parts_number": 1}]}
    answers: list[TestResponse] = at_once(*[lambda: service.call("POST", "/checkpoints", body)] * 10)
    assert sorted(answer.status_code for answer in answers) == [201] + [400] * 9
    refused = {answer.json["message"] for answer in answers if answer.status_code == 400}
    assert refused == {f"{name} already exists, please use another or rename/delete exists"}
    assert service.parts.database["checkpoints"].count_documents({"files.name": name}) == 1


def test_of_five_that_repeat_a_request_at_once_one_creates(service: Service) -> None:
    body = {"checkpoint_type": "Lora", "filenames": [{"filename": unique(), "parts_number": 1}]}
    key = {"Idempotency-Key": unique()}
    answers = at_once(*[lambda: service.call("POST", "/checkpoints", body, headers=dict(key))] * 5)
    assert [answer.status_code for answer in answers] == [201] * 5
    assert len({json.dumps(answer.json["data"]["checkpoint"]) for answer in answers}) == 1


def test_two_completions_at_once_give_one_finished_checkpoint(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    joined = []
    real = CheckpointStorage.complete_upload
    monkeypatch.setattr(
        CheckpointStorage, "complete_upload", lambda *call: joined.append(call) or real(*call)
    )
    uploaded = service.upload(safetensors(PART))
    answers = at_once(*[lambda: service.complete(uploaded)] * 4)
    assert [answer.status_code for answer in answers] == [200] * 4
    assert len({answer.text for answer in answers}) == 1
    assert len(joined) == 1


def test_of_two_completions_at_once_the_wrong_one_does_no_harm(service: Service) -> None:
    uploaded = service.upload()
    wrong = {uploaded.name: [{"ETag": "x", "PartNumber": 1}]}
    for _ in range(3):
        at_once(
            lambda: service.complete(uploaded), lambda: service.complete(uploaded, multi_parts_tags=wrong)
        )
        assert service.status(uploaded.id) == "Active"


def test_deleting_during_a_completion_leaves_nothing(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploaded = service.upload()
    real = CheckpointStorage.complete_upload

    def delete_then_complete(*call: Any) -> None:
        answer = service.call("DELETE", "/checkpoints", {"checkpoint_id_list": [uploaded.id]})
        assert answer.status_code == 204
        assert service.call("GET", f"/checkpoints/{uploaded.id}").status_code == 404
        real(*call)

    monkeypatch.setattr(CheckpointStorage, "complete_upload", delete_then_complete)
    answer = service.complete(uploaded)
    assert (answer.status_code, answer.json["message"]) == (
        404,
        f"checkpoint with id {uploaded.id} not found",
    )
    assert service.leftovers(uploaded.id) == []


def test_a_long_completion_keeps_its_lease(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    uploaded, real, inside = service.upload(), CheckpointStorage.complete_upload, threading.Event()

    def slowly(*call: Any) -> None:
        inside.set()
        threading.Event().wait(1.6 * service.parts.config.lease_seconds)
        real(*call)

    monkeypatch.setattr(CheckpointStorage, "complete_upload", slowly)
    monkeypatch.setattr(leases, "LEAST_WAIT", 0.0)
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(service.complete, uploaded)
        inside.wait(5)
        busy = service.complete(uploaded)
        assert slow.result().status_code == 200
    message = f"another request is working on checkpoint {uploaded.id}, please try again"
    assert (busy.status_code, busy.json["message"]) in {(409, message)}


DIE = """
import json, os, sys
from services.checkpoints.config import Config
from services.checkpoints.storage import CheckpointStorage
from services.checkpoints.wiring import Background, connect

method, when, checkpoint_id, tags = sys.argv[1:]
real = getattr(CheckpointStorage, method)

def dying(*call):
    if when == "after":
        real(*call)
    os._exit(9)

setattr(CheckpointStorage, method, dying)
connect(Config.from_env(), Background(print, print, print)).uploads.complete(checkpoint_id, json.loads(tags))
"""


def die_while_completing(service: Service, uploaded: Uploaded, method: str, when: str) -> None:
    """Complete the upload in another process that dies before or after it has called S3."""
    tags = json.dumps({uploaded.name: uploaded.tags})
    command = [sys.executable, "-c", DIE, method, when, uploaded.id, tags]
    assert subprocess.run(command, env=os.environ | service.environ, check=False).returncode == 9


@pytest.mark.parametrize("when", ["before", "after"])
def test_after_a_death_at_the_completion_the_same_put_succeeds(service: Service, when: str) -> None:
    uploaded = service.upload(safetensors(PART))
    die_while_completing(service, uploaded, "complete_upload", when)
    assert service.status(uploaded.id) == "Initial"
    (upload,) = service.call("GET", f"/checkpoints/{uploaded.id}/uploads").json["data"]["uploads"]
    assert (upload["complete"], upload["missing"]) == (when == "after", [])
    assert service.complete(uploaded).status_code == 200
    assert service.parts.storage.open_uploads(f"Lora/checkpoint/custom/{uploaded.id}/") == []


@pytest.mark.parametrize("method", ["delete_object", "begin_upload"])
def test_after_a_death_at_the_refusal_of_a_file_it_can_be_uploaded_again(
    service: Service, method: str
) -> None:
    uploaded = service.upload(b"nonsense of some length")
    die_while_completing(service, uploaded, method, "after")
    (upload,) = service.call("GET", f"/checkpoints/{uploaded.id}/uploads").json["data"]["uploads"]
    tags = put_parts([upload["missing"][0]["url"]], [safetensors()])
    assert service.complete(uploaded, multi_parts_tags={uploaded.name: tags}).status_code == 200
    assert service.parts.storage.open_uploads(f"Lora/checkpoint/custom/{uploaded.id}/") == []


def sha256_of(content: bytes) -> dict[str, str]:
    return {"sha256": hashlib.sha256(content).hexdigest().upper()}


def test_a_promised_sha256_is_verified_before_the_checkpoint_is_active(service: Service) -> None:
    content = safetensors(PART)
    uploaded = service.upload(content, file=sha256_of(content))
    answer = service.complete(uploaded)
    assert (answer.status_code, answer.json["checkpoint"]["status"]) == (202, "Initial")
    assert answer.json["message"] == "Checkpoint verification in progress, please check later"
    service.parts.uploads.verify(uploaded.id)
    assert service.status(uploaded.id) == "Active"
    models = {"username": "ann", "models": {"Lora": [uploaded.name]}}
    (model,) = service.call("POST", "/internal/resolve", models, service.keys.service()).json["models"]
    assert model["sha256"] == hashlib.sha256(content).hexdigest()


def test_a_wrong_sha256_is_told_and_the_file_can_be_uploaded_again(service: Service) -> None:
    good, bad = safetensors(1001), safetensors(1002)
    uploaded = service.upload(bad, file=sha256_of(good))
    assert service.complete(uploaded).status_code == 202
    service.parts.uploads.verify(uploaded.id)
    params = service.call("GET", f"/checkpoints/{uploaded.id}").json["data"]["checkpoint"]["params"]
    found = hashlib.sha256(bad).hexdigest()
    assert params["error"].startswith(f"{uploaded.name} has the sha256 {found}, not ")
    (upload,) = service.call("GET", f"/checkpoints/{uploaded.id}/uploads").json["data"]["uploads"]
    tags = put_parts([upload["missing"][0]["url"]], [good])
    assert service.complete(uploaded, multi_parts_tags={uploaded.name: tags}).status_code == 202
    service.parts.uploads.verify(uploaded.id)
    assert service.status(uploaded.id) == "Active"
