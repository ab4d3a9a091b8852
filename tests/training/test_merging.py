"""POST /inference/run-model-merge: what is asked of it, and what a worker gets."""

from datetime import timedelta

from services.common.times import now
from tests.training.conftest import KIND, Service, state

PATH = "/inference/run-model-merge"


def test_a_merge_is_accepted_with_its_checkpoint_and_claimed_with_its_files(service: Service) -> None:
    service.platform.files |= {(KIND, "a.safetensors"), (KIND, "b.safetensors"), ("VAE", "v.safetensors")}
    body = {
        "primary_model_name": "a.safetensors",
        "secondary_model_name": "b.safetensors",
        "multiplier": "0.3",
        "bake_in_vae": "v.safetensors",
    }
    answer = service.call("POST", PATH, body)
    assert answer.status_code == 202, answer.text
    data = answer.json["data"]
    assert (data["primary_model_name"], data["secondary_model_name"], data["tertiary_model_name"]) == (
        "a.safetensors",
        "b.safetensors",
        "",
    )
    assert (data["checkpoint"]["status"], data["checkpoint"]["name"]) == (
        "Initial",
        ["0.7(a) + 0.3(b).safetensors"],
    )
    work = service.claimed()
    assert work is not None
    assert (work["kind"], work["params"]["multiplier"]) == ("merge", 0.3)
    assert [file["name"] for file in work["files"]] == ["a.safetensors", "b.safetensors", "v.safetensors"]
    service.work(f"jobs/{work['id']}/progress", attempt=1, step=1, steps=2)
    told = [body for name, body in service.others.calls if name == "checkpoints/progress"]
    assert told[0]["progress"]["step"] == 1


def test_what_a_method_needs_is_told(service: Service) -> None:
    service.platform.files |= {(KIND, "a"), (KIND, "b")}
    base = {"primary_model_name": "a", "secondary_model_name": "b"}
    assert service.message("POST", PATH, {"secondary_model_name": "b"}).startswith(
        "object has missing required"
    )
    assert service.message("POST", PATH, {"primary_model_name": "a"}) == (
        "secondary_model_name is missing: Weighted sum needs 2 checkpoints"
    )
    assert service.message("POST", PATH, base | {"interp_method": "Add difference"}) == (
        "tertiary_model_name is missing: Add difference needs 3 checkpoints"
    )
    assert service.message("POST", PATH, base | {"secondary_model_name": "c"}) == (
        "checkpoint with name c, type Stable-diffusion is not found"
    )
    assert service.message("POST", PATH, base | {"multiplier": 99}) == "it must be from -10 to 10, not 99"
    assert (
        service.message("POST", PATH, base | {"checkpoint_format": "ckpt"}) == "only safetensors is written"
    )


def test_merging_needs_the_right_to_create_checkpoints(service: Service) -> None:
    who = service.user(permissions=("train:create", "inference:create"))
    body = {"primary_model_name": "a", "secondary_model_name": "b"}
    assert service.call("POST", PATH, body, who=who).status_code == 403


def test_a_merge_whose_checkpoint_is_deleted_ends(service: Service) -> None:
    service.platform.files |= {(KIND, "a.safetensors"), (KIND, "b.safetensors")}
    body = {"primary_model_name": "a.safetensors", "secondary_model_name": "b.safetensors"}
    assert service.call("POST", PATH, body).status_code == 202
    work = service.claimed()
    assert work is not None
    service.others.answers["checkpoints/progress"] = lambda _: {"noted": False}
    assert service.work(f"jobs/{work['id']}/progress", attempt=1, step=1).status_code == 409
    assert service.claimed() is None


def test_a_name_that_is_taken_leaves_no_work(service: Service) -> None:
    service.platform.files |= {(KIND, "a.safetensors"), (KIND, "b.safetensors")}
    service.platform.checkpoints["other"] = state("Active", None, "c.safetensors")
    body = {"primary_model_name": "a.safetensors", "secondary_model_name": "b.safetensors"}
    assert service.message("POST", PATH, body | {"custom_name": "c"}) == "c.safetensors already exists"
    assert service.parts.database["work"].count_documents({}) == 0


def test_a_creation_that_a_death_has_cut_off_is_given_up(service: Service) -> None:
    service.platform.files |= {(KIND, "a.safetensors"), (KIND, "b.safetensors")}
    body = {"primary_model_name": "a.safetensors", "secondary_model_name": "b.safetensors"}
    service.call("POST", PATH, body)
    old = now() - timedelta(hours=1)
    service.parts.database["work"].update_one({}, {"$set": {"status": "created", "created": old}})
    service.parts.finishing.sweep()
    assert service.parts.database["work"].count_documents({}) == 0
    (made,) = service.platform.checkpoints.values()
    assert made["error"] == "the merge could not be created"
