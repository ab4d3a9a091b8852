"""Checkpoints that the platform makes: a reserved name, an adopted file, and models of users."""

import uuid
from dataclasses import replace
from typing import Any

import pytest

from services.checkpoints.sealing import unseal
from services.checkpoints.wiring import EXTENSION
from tests.checkpoints.conftest import Service, put_parts, safetensors, unique


def ask(service: Service, what: str, **body: Any) -> dict[str, Any]:
    answer = service.call("POST", f"/internal/checkpoints/{what}", body, service.keys.service("training"))
    assert answer.status_code == 200, answer.text
    return dict(answer.json)


def reserved(service: Service, name: str, **changes: Any) -> dict[str, Any]:
    wanted = {
        "id": str(uuid.uuid4()),
        "type": "Lora",
        "filename": name,
        "creator": "ann",
        "allowed": ["artists"],
    }
    return ask(service, "reserve", **(wanted | changes))


def object_of(service: Service, content: bytes) -> str:
    key = f"train/test/{uuid.uuid4().hex}"
    service.parts.storage.objects.write(key, content)
    return key


def test_a_reserved_name_becomes_an_active_checkpoint(service: Service) -> None:
    name, content = unique(), safetensors(500)
    made = reserved(service, name)["checkpoint"]
    assert (made["status"], made["name"]) == ("Initial", [name])
    again = reserved(service, name, id=made["id"])  # a repeat finds the first
    assert again["checkpoint"]["id"] == made["id"]
    assert reserved(service, name)["error"].startswith(f"{name} already exists")
    ask(service, "progress", id=made["id"], progress={"step": 3, "steps": 9})
    shown = service.call("GET", f"/checkpoints/{made['id']}").json["data"]["checkpoint"]
    assert shown["params"]["progress"] == {"step": 3, "steps": 9}
    key = object_of(service, content)
    for _ in range(2):  # whoever dies before it has heard the answer asks again
        assert (
            ask(service, "adopt", id=made["id"], key=key, params={"training": {"steps": 7}})["error"] is None
        )
    shown = service.call("GET", f"/checkpoints/{made['id']}").json["data"]["checkpoint"]
    assert (shown["status"], shown["params"]["training"]) == ("Active", {"steps": 7})
    body = {"username": "ann", "roles": ["artists"], "models": {"Lora": [name]}}
    found = service.call("POST", "/internal/resolve", body, service.keys.service()).json["models"]
    assert found[0]["size"] == len(content)


def test_a_file_that_is_no_checkpoint_is_not_adopted_and_its_name_is_free(service: Service) -> None:
    name = unique()
    made = reserved(service, name)["checkpoint"]
    error = ask(service, "adopt", id=made["id"], key=object_of(service, b"nonsense"))["error"]
    assert name in error
    assert "checkpoint" in reserved(service, name)


def test_what_nobody_makes_frees_its_name_and_says_why(service: Service) -> None:
    name = unique()
    made = reserved(service, name)["checkpoint"]
    ask(service, "give-up", id=made["id"], error="the worker broke")
    shown = service.call("GET", f"/checkpoints/{made['id']}").json["data"]["checkpoint"]
    assert (shown["status"], shown["params"]["error"]) == ("Initial", "the worker broke")
    assert "checkpoint" in reserved(service, name)


def test_a_checkpoint_that_was_deleted_meanwhile_is_not_made(service: Service) -> None:
    made = reserved(service, unique())["checkpoint"]
    assert service.call("DELETE", "/checkpoints", {"checkpoint_id_list": [made["id"]]}).status_code == 204
    key = object_of(service, safetensors())
    assert ask(service, "adopt", id=made["id"], key=key)["error"] == "the checkpoint was deleted"


def test_clients_cannot_complete_what_the_platform_makes(service: Service) -> None:
    made = reserved(service, name := unique())["checkpoint"]
    tags = {name: [{"ETag": "e", "PartNumber": 1}]}
    body = {"status": "Active", "multi_parts_tags": tags}
    assert service.call("PUT", f"/checkpoints/{made['id']}", body).status_code == 409


def test_a_model_is_uploaded_for_a_user(service: Service) -> None:
    name, who = unique(), {"username": "ann", "roles": ["artists"]}
    begun = ask(service, "begin", filenames=[{"filename": name, "parts_number": 1}], **who)
    checkpoint_id = begun["checkpoint"]["id"]
    (state,) = ask(service, "states", ids=[checkpoint_id, "none"], **who)["checkpoints"].values()
    assert (state["status"], state["stage"], state["names"]) == ("Initial", "uploading", [name])
    assert ask(service, "states", ids=[checkpoint_id], username="ben")["checkpoints"] == {}
    refused = ask(service, "complete", id=checkpoint_id, tags={}, **who)
    assert refused["status"] == 400
    tags = {name: put_parts(begun["s3PresignUrl"][name], [safetensors()])}
    assert ask(service, "complete", id=checkpoint_id, tags=tags, username="ben")["status"] == 404
    assert ask(service, "complete", id=checkpoint_id, tags=tags, **who) == {}
    assert (
        ask(service, "states", ids=[checkpoint_id], **who)["checkpoints"][checkpoint_id]["status"] == "Active"
    )
    ask(service, "delete", ids=[checkpoint_id], **who)
    assert service.status(checkpoint_id) is None


def test_an_import_of_a_private_address_is_refused(service: Service) -> None:
    refused = ask(service, "begin", urls=["ftp://example.org/x"], username="ann")
    assert refused["status"] == 400
    assert "only http and https" in refused["error"]


def test_a_repeat_for_the_same_model_finds_the_first(service: Service) -> None:
    wanted = {"id": "m1", "filenames": [{"filename": unique(), "parts_number": 1}], "username": "ann"}
    first, again = ask(service, "begin", **wanted), ask(service, "begin", **wanted)
    assert first["checkpoint"]["id"] == again["checkpoint"]["id"]
    assert list(again["s3PresignUrl"]) == list(first["s3PresignUrl"])


def test_a_token_is_sealed_on_its_way_to_the_import_and_kept_nowhere(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str]] = []
    background = replace(service.parts.background, fetch=lambda *words: asked.append(words))
    monkeypatch.setitem(service.app.extensions, EXTENSION, replace(service.parts, background=background))
    ask(service, "begin", urls=["https://example.org/x.safetensors"], username="ann", token="hf_secret")
    ((_, sealed),) = asked
    assert "hf_secret" not in sealed
    assert unseal(sealed, service.keys.service_secret) == "hf_secret"
    assert unseal(sealed, "another secret") is None
    assert "hf_secret" not in str(list(service.parts.database["checkpoints"].find()))
