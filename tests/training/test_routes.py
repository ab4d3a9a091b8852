"""Trainings as clients create, start, stop, see and delete them."""

import pytest

from tests.training.conftest import SHAPES, Service, state


def test_a_training_goes_from_creation_to_its_checkpoint(service: Service) -> None:
    training_id = service.create(output_name="violet")
    assert service.status(training_id) == "Initial"
    service.call("PUT", f"/trainings/{training_id}/start")
    assert service.status(training_id) == "Pending"
    work = service.claimed()
    assert work is not None
    assert (work["result_name"], work["use_lora"], work["attempt"]) == ("violet.safetensors", True, 1)
    assert work["concepts"][0]["pictures"][0]["caption"] == "x"
    assert service.status(training_id) == "Training"
    report = {"attempt": 1, "step": 5, "steps": 10, "loss": 0.5, "losses": [[5, 0.5]], "doing": "training"}
    answer = service.work(f"jobs/{training_id}/progress", **report, unknown_parameters=["nope"])
    assert answer.json["stop"] is False
    shown = service.shown(training_id)
    assert (shown["progress"]["step"], shown["loss"], shown["unknown_parameters"]) == (
        5,
        [[5.0, 0.5]],
        ["nope"],
    )
    file = service.upload(training_id, "result.safetensors")
    assert service.work(f"jobs/{training_id}/complete", attempt=1, file=file).status_code == 204
    assert service.status(training_id) == "Training"  # until the checkpoint is Active
    service.parts.finishing.finish(training_id)
    shown = service.shown(training_id)
    assert (shown["job_status"], shown["checkpoint_name"]) == ("Complete", "violet.safetensors")
    assert service.platform.checkpoints[shown["checkpoint_id"]]["status"] == "Active"


def test_starting_twice_starts_once_and_what_has_ended_is_not_started_again(service: Service) -> None:
    training_id = service.started()
    again = service.call("PUT", f"/trainings/{training_id}", {"status": "Training"})
    assert (again.status_code, again.json["data"]["job"]["status"]) == (202, "Pending")
    assert service.claimed() is not None
    assert service.claimed("worker-2") is None
    assert service.call("PUT", f"/trainings/{training_id}/start").status_code == 202
    service.work(f"jobs/{training_id}/fail", attempt=1, kind="request", message="no good")
    assert service.message("PUT", f"/trainings/{training_id}/start", status=409) == (
        f"training {training_id} is Fail, it cannot be started again: create another one"
    )


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"status": "Disabled"}, "dataset stars is Disabled, enable it before it is trained on"),
        ({"status": "Initialed"}, "dataset stars is Initialed, enable it before it is trained on"),
        (
            {"pictures": []},
            "dataset stars has no picture to train on: it is empty, see GET /datasets/stars",
        ),
        (
            {"pictures": [], "faulty": 2},
            "dataset stars has no picture to train on: all its 2 pictures have problems, "
            "see GET /datasets/stars",
        ),
    ],
)
def test_a_data_set_that_cannot_be_used_is_told_at_the_start(
    service: Service, changes: dict, sentence: str
) -> None:
    training_id = service.create()
    service.platform.dataset(**changes)
    assert service.message("PUT", f"/trainings/{training_id}/start") == sentence
    assert service.status(training_id) == "Initial"


def test_a_data_set_under_verification_lets_the_training_wait(service: Service) -> None:
    service.platform.dataset(verifying=True, pictures=[])
    training_id = service.started()
    assert service.claimed() is None
    assert service.shown(training_id)["waits_for"] == "the verification of its data set"
    service.platform.dataset()
    service.parts.database["work"].update_one({"_id": training_id}, [{"$set": {"not_before": "$created"}}])
    assert service.claimed() is not None


def test_a_data_set_that_turns_out_faulty_fails_the_training_and_frees_its_name(service: Service) -> None:
    service.platform.dataset(verifying=True, pictures=[])
    training_id = service.started(output_name="kept")
    service.platform.dataset(pictures=[], faulty=1)
    assert service.claimed() is None
    shown = service.shown(training_id)
    assert shown["job_status"] == "Fail"
    assert "all its 1 pictures have problems" in shown["error"]
    assert service.platform.checkpoints[shown["checkpoint_id"]]["names"] == []


def test_what_is_missing_is_told_at_the_creation(service: Service) -> None:
    def message(training: dict, **config: object) -> str:
        params = {"training_params": training, "config_params": config}
        return service.message("POST", "/trainings", {"train_type": "x", "params": params})

    model = {"model": SHAPES}
    assert message({"dataset": "stars"}).startswith(
        "name what to train: model_id, or a checkpoint's file name"
    )
    assert message({"model": "nothing.safetensors", "dataset": "stars"}) == (
        "checkpoint with name nothing.safetensors, type Stable-diffusion is not found"
    )
    assert message(model).startswith("no data set is named")
    assert message(model | {"dataset": "hidden"}) == "dataset hidden is not found"
    bucket = service.parts.storage.objects.bucket
    elsewhere = "s3://somebody/else/stars"
    assert message(model | {"data_tar_list": [elsewhere]}) == (
        f"{elsewhere} is no data set: only s3://{bucket}/dataset/NAME can be trained on"
    )
    assert message(model, concepts_list="x") == "config_params.concepts_list must be a list of objects"
    assert service.create(training={"dataset": "", "data_tar_list": [f"s3://{bucket}/dataset/stars/a.tar"]})
    assert service.create(dataset="", concepts_list=[{"instance_data_dir": "stars", "instance_prompt": "x"}])


def test_settings_in_groups_are_read_as_if_there_were_none(service: Service) -> None:
    service.platform.dataset("plain")
    groups = {
        "dataset_arguments": {"train_data_dir": "3_stars", "reg_data_dir": "plain", "class_prompt": "a star"},
        "saving_arguments": {"output_name": "grouped"},
    }
    service.platform.dataset("3_stars")
    training_id = service.create(dataset="", **groups)
    service.call("PUT", f"/trainings/{training_id}/start")
    work = service.claimed()
    assert work is not None
    assert work["result_name"] == "grouped.safetensors"
    (concept,) = work["concepts"]
    assert (concept["repeats"], concept["class_prompt"], len(concept["class_pictures"])) == (3, "a star", 1)


def test_a_training_that_waits_says_what_for(service: Service) -> None:
    training_id = service.create(training={"training_instance_type": "ml.g4dn.2xlarge"})
    service.call("PUT", f"/trainings/{training_id}/start")
    assert service.shown(training_id)["waits_for"] == (
        "a worker of the instance type ml.g4dn.2xlarge that is idle and has a free slot"
    )


def test_a_checkpoint_that_was_replaced_since_the_start_fails_the_training(service: Service) -> None:
    training_id = service.started()
    service.parts.database["work"].update_one({"_id": training_id}, {"$set": {"files": [{"id": "older"}]}})
    assert service.claimed() is None
    assert service.shown(training_id)["error"] == (
        f"the checkpoint {SHAPES} was replaced by another of its name since the start"
    )


def test_a_deletion_that_was_cut_off_is_ended_by_the_sweep(service: Service) -> None:
    training_id = service.started()
    service.claimed()
    service.upload(training_id, "state-5.state")
    give_up = service.others.answers.pop("checkpoints/give-up")
    service.call("DELETE", "/trainings", {"training_id_list": [training_id]})
    assert service.call("GET", f"/trainings/{training_id}").status_code == 404
    assert service.parts.database["work"].count_documents({}) == 1
    service.others.answers["checkpoints/give-up"] = give_up
    service.parts.finishing.sweep()
    assert service.parts.database["work"].count_documents({}) == 0
    assert list(service.parts.storage.objects.keys_under("train/")) == []
    assert service.platform.checkpoints


def test_the_end_leaves_samples_and_saves_alone(service: Service) -> None:
    training_id = service.started()
    service.claimed()
    for step, name in ((5, "state-5.state"), (6, "sample-6-0.png"), (7, "state-7.state")):
        file = service.upload(training_id, name)
        service.work(f"jobs/{training_id}/saved", attempt=1, file=file, step=step)
    service.upload(training_id, "save-8.safetensors")  # its worker dies before it can say so
    file = service.upload(training_id, "result.safetensors")
    service.work(f"jobs/{training_id}/complete", attempt=1, file=file)
    service.parts.finishing.finish(training_id)
    keys = service.parts.storage.objects.keys_under("train/")
    assert [key.rsplit("/", 1)[-1] for key in keys] == ["sample-6-0.png"]


def test_the_older_ways_to_change_and_to_read(service: Service) -> None:
    training_id = service.create()
    body = {"train_job_id": training_id, "status": "Training"}
    assert service.call("PUT", "/trainings", body).status_code == 202
    wrong = service.message("PUT", "/trainings", body | {"status": "Complete"})
    assert wrong == 'instance value ("Complete") not found in enum (possible values: ["Training","Stopped"])'
    assert service.message("GET", "/trainings/none", status=404) == "Job with id none not found"


def test_a_stop_while_waiting_frees_the_name_at_once(service: Service) -> None:
    training_id = service.started(output_name="later")
    answer = service.call("PUT", f"/trainings/{training_id}/stop")
    assert (answer.status_code, answer.json["data"]["job"]["status"]) == (200, "Stopped")
    assert service.claimed() is None
    assert service.started(output_name="later")
    assert service.message("PUT", f"/trainings/{service.create()}/stop", status=409).endswith(
        "nothing to stop"
    )


def test_a_stop_while_running_keeps_what_was_learned(service: Service) -> None:
    training_id = service.started()
    service.claimed()
    assert service.call("PUT", f"/trainings/{training_id}", {"status": "Stopped"}).status_code == 200
    assert service.work(f"jobs/{training_id}/progress", attempt=1, step=3).json["stop"] is True
    file = service.upload(training_id, "result.safetensors")
    service.work(f"jobs/{training_id}/complete", attempt=1, file=file, stopped=True)
    service.parts.finishing.finish(training_id)
    shown = service.shown(training_id)
    assert shown["job_status"] == "Stopped"
    assert service.platform.checkpoints[shown["checkpoint_id"]]["status"] == "Active"


def test_deleting_a_running_training_ends_it(service: Service) -> None:
    training_id = service.started()
    service.claimed()
    service.upload(training_id, "state-5.state")
    checkpoint_id = service.shown(training_id)["checkpoint_id"]
    body = {"training_id_list": [training_id, "absent"]}
    assert service.call("DELETE", "/trainings", body).status_code == 204
    assert service.call("GET", f"/trainings/{training_id}").status_code == 404
    assert service.work(f"jobs/{training_id}/progress", attempt=1, step=4).status_code == 409
    assert list(service.parts.storage.objects.keys_under("train/")) == []
    assert service.platform.checkpoints[checkpoint_id]["error"] == "the training was deleted"


def test_others_neither_see_nor_change_a_training(service: Service) -> None:
    training_id = service.create()
    ben, admin = service.user("ben"), service.keys.user("root")
    assert service.call("GET", f"/trainings/{training_id}", who=ben).status_code == 404
    assert service.call("PUT", f"/trainings/{training_id}/start", who=ben).status_code == 404
    service.call("DELETE", "/trainings", {"training_id_list": [training_id]}, who=ben)
    assert service.call("GET", "/trainings", who=ben).json["data"]["trainJobs"] == []
    assert service.call("GET", f"/trainings/{training_id}", who=admin).status_code == 200


def test_a_list_is_filtered(service: Service) -> None:
    waiting, created = service.started(), service.create()
    listed = service.call("GET", "/trainings?status=Initial").json["data"]["trainJobs"]
    assert [one["id"] for one in listed] == [created]
    listed = service.call("GET", "/trainings").json["data"]["trainJobs"]
    assert [(one["id"], one["status"]) for one in listed] == [(created, "Initial"), (waiting, "Pending")]


def test_a_taken_name_is_told_at_the_start(service: Service) -> None:
    service.platform.checkpoints["other"] = state("Active", None, "taken.safetensors")
    training_id = service.create(output_name="taken")
    assert service.message("PUT", f"/trainings/{training_id}/start") == "taken.safetensors already exists"


def test_a_result_that_is_no_checkpoint_fails_the_training(service: Service) -> None:
    training_id = service.started()
    service.claimed()
    file = service.upload(training_id, "result.safetensors")
    service.work(f"jobs/{training_id}/complete", attempt=1, file=file)
    service.platform.adopt_error = "it is no safetensors file"
    service.parts.finishing.finish(training_id)
    assert service.shown(training_id)["error"] == "it is no safetensors file"
