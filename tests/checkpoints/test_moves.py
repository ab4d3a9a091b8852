"""Renaming a checkpoint's file and changing its type."""

from datetime import timedelta
from typing import Any

import pytest

from services.checkpoints import moves
from services.checkpoints import storage as storage_module
from services.checkpoints.storage import CheckpointStorage
from services.common.times import now
from tests.checkpoints.conftest import PART, Service, safetensors, unique


def change(service: Service, checkpoint_id: str, **body: Any) -> Any:
    return service.call("PUT", f"/checkpoints/{checkpoint_id}", body)


def found(service: Service, name: str, kind: str = "Lora") -> Any:
    body = {"username": "ann", "models": {kind: [name]}}
    models = service.call("POST", "/internal/resolve", body, service.keys.service()).json["models"]
    return models[0] if models else None


def read(service: Service, key: str) -> bytes | None:
    return service.parts.storage.objects.read(key, 10**9)


def test_a_renamed_file_has_its_new_key_and_the_old_name_is_free(service: Service) -> None:
    content, new = safetensors(PART), unique("new")
    uploaded = service.active(content)
    answer = change(service, uploaded.id, name=new)
    assert (answer.status_code, answer.json["checkpoint"]["name"]) == (200, [new])
    model = found(service, new)
    assert model["key"] == f"Lora/checkpoint/custom/{uploaded.id}/{new}"
    assert read(service, model["key"]) == content
    assert found(service, uploaded.name) is None
    assert service.begin(uploaded.name)


def test_another_type_moves_the_objects(service: Service) -> None:
    uploaded = service.active()
    answer = change(service, uploaded.id, checkpoint_type="VAE")
    checkpoint = answer.json["checkpoint"]
    assert (answer.status_code, checkpoint["type"]) == (200, "VAE")
    assert checkpoint["s3_location"].endswith(f"/VAE/checkpoint/custom/{uploaded.id}")
    assert (
        found(service, uploaded.name, "VAE")["key"] == f"VAE/checkpoint/custom/{uploaded.id}/{uploaded.name}"
    )


def test_a_large_file_is_renamed_in_the_background_and_keeps_its_old_name_until_then(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moves, "AT_ONCE_BYTES", 100)
    monkeypatch.setattr(storage_module, "COPY_PART_BYTES", PART)
    content, new = safetensors(PART + 1000), unique("new")
    uploaded = service.active(content)
    answer = change(service, uploaded.id, name=new)
    assert answer.status_code == 202
    assert answer.json["message"] == "Checkpoint update in progress, please check later"
    assert answer.json["checkpoint"]["params"]["pending"] == {"name": new, "type": "Lora"}
    assert answer.json["checkpoint"]["name"] == [uploaded.name]
    assert found(service, uploaded.name)
    assert change(service, uploaded.id, name=unique()).status_code == 409
    taken = service.call(
        "POST",
        "/checkpoints",
        {"checkpoint_type": "VAE", "filenames": [{"filename": new, "parts_number": 1}]},
    )
    assert taken.json["message"] == f"{new} already exists, please use another or rename/delete exists"
    service.parts.moves.run(uploaded.id)
    assert found(service, uploaded.name) is None
    assert read(service, found(service, new)["key"]) == content
    assert service.parts.storage.open_uploads(f"Lora/checkpoint/custom/{uploaded.id}/") == []


def test_the_old_object_stays_for_jobs_and_goes_later(service: Service) -> None:
    uploaded = service.active()
    old_key = found(service, uploaded.name)["key"]
    change(service, uploaded.id, name=unique("new"))
    service.parts.deletion.empty_trash(now() - timedelta(hours=1))
    assert service.parts.storage.find(old_key) is not None
    service.parts.deletion.empty_trash(now() + timedelta(seconds=1))
    assert service.parts.storage.find(old_key) is None


def test_renaming_back_and_forth_loses_nothing(service: Service) -> None:
    content, new = safetensors(), unique("new")
    uploaded = service.active(content)
    for name in (new, uploaded.name, new):
        assert change(service, uploaded.id, name=name).status_code == 200
    service.parts.deletion.empty_trash(now() + timedelta(seconds=1))
    assert read(service, found(service, new)["key"]) == content
    assert read(service, f"Lora/checkpoint/custom/{uploaded.id}/{uploaded.name}") is None


def test_deleting_a_moved_checkpoint_leaves_nothing(service: Service) -> None:
    uploaded = service.active()
    change(service, uploaded.id, checkpoint_type="VAE")
    change(service, uploaded.id, name=unique())
    service.call("DELETE", "/checkpoints", {"checkpoint_id_list": [uploaded.id]})
    assert service.leftovers(uploaded.id) == []


def test_deleting_during_a_move_leaves_nothing(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    uploaded, real = service.active(), CheckpointStorage.copy

    def delete_then_copy(*call: Any) -> None:
        service.call("DELETE", "/checkpoints", {"checkpoint_id_list": [uploaded.id]})
        real(*call)

    monkeypatch.setattr(CheckpointStorage, "copy", delete_then_copy)
    change(service, uploaded.id, checkpoint_type="VAE")
    assert service.leftovers(uploaded.id) == []


def test_what_cannot_be_renamed_says_why(service: Service) -> None:
    active, taken, initial = service.active(), service.active(), service.upload()
    disabled = service.active()
    change(service, disabled.id, status="Disabled")
    for checkpoint_id, name, status, message in (
        (
            active.id,
            taken.name,
            400,
            f"{taken.name} already exists, please use another or rename/delete exists",
        ),
        (active.id, "a/b.safetensors", 400, "a/b.safetensors has a path separator in its file name"),
        (active.id, "x.ckpt", 400, "x.ckpt is a .ckpt file"),
        (initial.id, unique(), 409, f"checkpoint {initial.id} is Initial, only an Active one can be renamed"),
        (disabled.id, unique(), 409, f"checkpoint {disabled.id} is Disabled, only an Active one"),
    ):
        answer = change(service, checkpoint_id, name=name)
        assert answer.status_code == status
        assert answer.json["message"].startswith(message)
    assert change(service, active.id, name=active.name).status_code == 200
    assert found(service, active.name)
