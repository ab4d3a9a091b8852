"""Models: uploads, existing checkpoints, imports, and what they may be trained for."""

from tests.training.conftest import SHAPES, Service, state


def model(service: Service, **body: object) -> dict:
    answer = service.call("POST", "/models", {"model_type": "Stable-diffusion", "name": "mine"} | body)
    assert answer.status_code == 201, answer.text
    return dict(answer.json["data"]["job"])


def test_a_model_of_an_existing_checkpoint_is_complete_at_once(service: Service) -> None:
    service.platform.checkpoints["c1"] = state("Active")
    made = model(service, checkpoint_id="c1")
    assert (made["status"], made["files"]) == ("Complete", [SHAPES])
    assert service.message("POST", "/models", {"model_type": "x", "name": "y", "checkpoint_id": "none"}) == (
        "checkpoint with id none not found"
    )


def test_an_uploaded_model_is_completed_and_then_trained(service: Service) -> None:
    made = model(service, filenames=[{"filename": "m.safetensors", "parts_number": 1}])
    assert (made["status"], made["s3PresignUrl"]) == ("Initial", {"m.safetensors": ["http://s3/part"]})
    params = {"training_params": {"dataset": "stars"}}
    body = {"train_type": "x", "model_id": made["id"], "params": params}
    training_id = service.call("POST", "/trainings", body).json["data"]["job"]["id"]
    service.platform.checkpoints["made"] |= {"stage": "verifying"}
    assert service.message("PUT", f"/trainings/{training_id}/start") == (
        "model mine is Creating, only one that is Complete can be trained"
    )
    service.platform.checkpoints["made"] |= {"status": "Active", "stage": None}
    service.platform.files.add(("Stable-diffusion", "m.safetensors"))
    tags = {"m.safetensors": [{"ETag": "e", "PartNumber": 1}]}
    done = service.call("PUT", f"/models/{made['id']}", {"status": "Creating", "multi_parts_tags": tags})
    assert done.json["data"]["job"]["jobStatus"] == "Complete"
    assert service.call("PUT", f"/trainings/{training_id}/start").status_code == 202


def test_a_token_for_the_hub_is_not_kept(service: Service) -> None:
    wish = {
        "from_hub": True,
        "new_model_url": "https://example.org/m.safetensors",
        "new_model_token": "secret",
    }
    made = model(service, params={"create_model_params": wish})
    assert made["status"] == "Creating"
    assert "secret" not in str(list(service.parts.database["models"].find()))
    (begun,) = [body for name, body in service.others.calls if name == "checkpoints/begin"]
    assert (begun["urls"], begun["token"]) == (["https://example.org/m.safetensors"], "secret")
    folder = {"create_model_params": wish | {"new_model_url": "somebody/model"}}
    refused = service.message("POST", "/models", {"model_type": "x", "name": "y", "params": folder})
    assert refused.startswith("new_model_url must be the address of one weight file")


def test_a_repeated_creation_finds_the_model_and_its_urls(service: Service) -> None:
    body = {"model_type": "x", "name": "y", "filenames": [{"filename": "m.safetensors"}]}
    answers = [service.call("POST", "/models", body, **{"Idempotency-Key": "k"}) for _ in range(2)]
    first, again = (answer.json["data"] for answer in answers)
    assert (first["job"]["id"], first["s3PresignUrl"]) == (again["job"]["id"], again["s3PresignUrl"])
    wanted = {body["id"] for name, body in service.others.calls if name == "checkpoints/begin"}
    assert wanted == {first["job"]["id"]}


def test_a_completion_without_tags_is_told(service: Service) -> None:
    made = model(service, filenames=[{"filename": "m.safetensors"}])
    assert service.message("PUT", f"/models/{made['id']}", {"status": "Creating"}) == (
        "multi parts tags is empty"
    )


def test_what_fails_is_said_and_a_deleted_model_takes_its_file_along(service: Service) -> None:
    made = model(service, filenames=[{"filename": "m.safetensors"}])
    service.platform.checkpoints["made"] |= {"stage": "failed", "error": "it is broken"}
    (listed,) = service.call("GET", "/models?status=Fail").json["data"]["models"]
    assert (listed["status"], listed["error"]) == ("Fail", "it is broken")
    assert service.call("DELETE", "/models", {"model_id_list": [made["id"]]}).status_code == 204
    assert service.call("GET", "/models").json["data"]["models"] == []
    assert ("checkpoints/delete", ["made"]) in [
        (name, body.get("ids")) for name, body in service.others.calls
    ]


def test_others_do_not_see_a_model(service: Service) -> None:
    service.platform.checkpoints["c1"] = state("Active")
    made = model(service, checkpoint_id="c1")
    ben = service.user("ben")
    assert service.call("GET", "/models", who=ben).json["data"]["models"] == []
    assert service.call("PUT", f"/models/{made['id']}", {}, who=ben).status_code == 404
    params = {"training_params": {"dataset": "stars"}}
    body = {"train_type": "x", "model_id": made["id"], "params": params}
    assert service.call("POST", "/trainings", body, who=ben).status_code == 404
