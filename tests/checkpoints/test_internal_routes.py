"""What other services ask: the files that a user may use."""

from typing import Any

from tests.checkpoints.conftest import Service, safetensors


def resolve(service: Service, models: Any, **who: Any) -> dict[str, Any]:
    body = {"username": "ann", "roles": ["artists"], "see_all": False, "models": models} | who
    answer = service.call("POST", "/internal/resolve", body, service.keys.service())
    assert answer.status_code == 200, answer.text
    return dict(answer.json)


def test_an_active_file_is_found_with_what_a_worker_needs(service: Service) -> None:
    content = safetensors(777)
    uploaded = service.active(content)
    (model,) = resolve(service, {"Lora": [uploaded.name]})["models"]
    key = f"Lora/checkpoint/custom/{uploaded.id}/{uploaded.name}"
    stored = service.parts.storage.find(key)
    bucket = service.parts.storage.bucket
    assert stored is not None
    assert model == {
        "type": "Lora",
        "name": uploaded.name,
        "id": uploaded.id,
        "s3_location": f"s3://{bucket}/Lora/checkpoint/custom/{uploaded.id}",
        "bucket": bucket,
        "key": key,
        "size": len(content),
        "etag": stored.etag,
        "sha256": None,
    }


def test_only_active_files_of_the_type_that_the_user_may_see_are_found(service: Service) -> None:
    active = service.active(allowed_roles_or_users=["artists"])
    private = service.active(allowed_roles_or_users=[])
    initial, disabled = service.upload(), service.active()
    service.call("PUT", f"/checkpoints/{disabled.id}", {"status": "Disabled"})
    names = [active.name, private.name, initial.name, disabled.name, "nothing"]

    def found(kind: str = "Lora", **who: Any) -> list[str]:
        answer = resolve(service, {kind: names}, **who)
        missing = [one["name"] for one in answer["missing"]]
        models = [one["name"] for one in answer["models"]]
        assert sorted(missing + models) == sorted(names)
        return models

    assert found() == [active.name, private.name]
    assert found(username="bob") == [active.name]
    assert found(username="bob", roles=[]) == []
    assert found(username="bob", roles=[], see_all=True) == [active.name, private.name]
    assert found("VAE") == []
    assert found("Nonsense") == []


def test_nothing_asked_is_nothing_found(service: Service) -> None:
    assert resolve(service, {}) == resolve(service, {"Lora": []}) == {"models": [], "missing": []}


def test_users_may_not_ask(service: Service) -> None:
    for who in (service.user(), service.admin(), service.keys.worker()):
        assert (
            service.call("POST", "/internal/resolve", {"username": "ann", "models": {}}, who).status_code
            == 401
        )


def usable(service: Service, kind: str = "Lora", **who: Any) -> list[str]:
    body = {"username": "ann", "roles": ["artists"], "see_all": False, "type": kind} | who
    answer = service.call("POST", "/internal/usable", body, service.keys.service())
    assert answer.status_code == 200, answer.text
    return list(answer.json["names"])


def test_the_usable_names_of_a_type_are_those_of_its_active_files_newest_first(service: Service) -> None:
    active = service.active(allowed_roles_or_users=["artists"])
    private = service.active(allowed_roles_or_users=[])
    service.upload()
    disabled = service.active()
    service.call("PUT", f"/checkpoints/{disabled.id}", {"status": "Disabled"})
    ours = {active.name, private.name, disabled.name}

    def found(**who: Any) -> list[str]:
        return [name for name in usable(service, **who) if name in ours]

    assert found() == [private.name, active.name]
    assert found(username="bob") == [active.name]
    assert found(username="bob", roles=[]) == []
    assert found(username="bob", roles=[], see_all=True) == [private.name, active.name]
    assert found(kind="VAE") == []
