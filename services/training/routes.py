"""The public routes of trainings."""

from typing import Any

from flask import Response

from services.common.envelope import answer
from services.common.idempotency import create_once
from services.common.identity import current_caller, requires
from services.common.paging import next_key
from services.common.web import ServiceBlueprint
from services.training.errors import JobNotFound
from services.training.names import check_input_name
from services.training.presentation import listed_training, shown_training, training_job
from services.training.repository import Work
from services.training.schemas import (
    ChangedTraining,
    NamedChangedTraining,
    NewTraining,
    OneJob,
    OneTraining,
    TrainingIds,
    TrainingPage,
    TrainingQuery,
)
from services.training.states import inside
from services.training.wiring import current_parts

blp = ServiceBlueprint("trainings", __name__, description="Trainings")


def _owner() -> str | None:
    """Whose trainings the caller sees; None for everybody's."""
    caller = current_caller()
    return None if caller.may("train:all") else caller.name


def _own(work_id: str) -> Work:
    work = current_parts().work.find(work_id, _owner())
    if work is None:
        raise JobNotFound(work_id)
    return work


def _start(work_id: str) -> Response:
    parts = current_parts()
    work = parts.trainings.start(current_caller(), _own(work_id))
    return answer(202, "Training started", {"job": training_job(work, parts.storage)})


def _stop(work_id: str) -> Response:
    parts = current_parts()
    work = parts.trainings.stop(current_caller(), _own(work_id))
    return answer(200, "OK", {"job": training_job(work, parts.storage)})


def _change(work_id: str, status: str) -> Response:
    return _start(work_id) if status == "Training" else _stop(work_id)


@blp.route("/trainings", methods=["POST"])
@blp.arguments(NewTraining)
@blp.answers(201, OneJob, "Created")
@requires("train:create")
def create_training(body: dict[str, Any]) -> dict[str, Any]:
    """Create a training; it begins with its start."""
    parts = current_parts()
    names = [file["filename"] for file in body.get("filenames") or []]
    for name in names:
        check_input_name(name)
    work = create_once(
        lambda made_id: parts.trainings.create(current_caller(), body, made_id), parts.work.get, "created"
    )
    urls = {name: parts.storage.input_url(work, name) for name in names}
    return {"job": training_job(work, parts.storage) | {"s3PresignUrl": urls}, "s3PresignUrl": urls}


@blp.route("/trainings", methods=["GET"])
@blp.arguments(TrainingQuery, location="query")
@blp.answers(200, TrainingPage)
@requires("train:list")
def list_trainings(query: dict[str, Any]) -> dict[str, Any]:
    """The caller's trainings, newest first."""
    filters: dict[str, Any] = {}
    if query["types"]:
        filters["train_type"] = {"$in": query["types"]}
    if query["status"]:
        filters["status"] = {"$in": [state for shown in query["status"] for state in inside(shown)]}
    found = current_parts().work.page(_owner(), filters, query["limit"], query["last_evaluated_key"])
    return {
        "trainJobs": [listed_training(work) for work in found[: query["limit"]]],
        "last_evaluated_key": next_key(found, query["limit"], "created"),
    }


@blp.route("/trainings", methods=["PUT"])
@blp.arguments(NamedChangedTraining)
@blp.answers(200, OneJob)
@requires("train:update")
def change_named_training(body: dict[str, Any]) -> Response:
    """Start or stop, with the id in the body, as older clients send it."""
    return _change(body["train_job_id"], body["status"])


@blp.route("/trainings", methods=["DELETE"])
@blp.arguments(TrainingIds)
@blp.answers(204)
@requires("train:delete")
def delete_trainings(body: dict[str, Any]) -> None:
    """Delete one's own trainings, wherever they are; checkpoints that they have made stay."""
    current_parts().trainings.delete(body["training_id_list"], _owner())


@blp.route("/trainings/<training_id>", methods=["GET"])
@blp.answers(200, OneTraining)
@requires("train:list")
def get_training(training_id: str) -> dict[str, Any]:
    """One training: progress, loss, samples."""
    return shown_training(_own(training_id), current_parts().storage)


@blp.route("/trainings/<training_id>", methods=["PUT"])
@blp.arguments(ChangedTraining)
@blp.answers(200, OneJob)
@requires("train:update")
def change_training(body: dict[str, Any], training_id: str) -> Response:
    """Start or stop."""
    return _change(training_id, body["status"])


@blp.route("/trainings/<training_id>/start", methods=["PUT"])
@blp.answers(202, OneJob)
@requires("train:update")
def start_training(training_id: str) -> Response:
    """Let a worker take it; starting twice starts once."""
    return _start(training_id)


@blp.route("/trainings/<training_id>/stop", methods=["PUT"])
@blp.answers(200, OneJob)
@requires("train:update")
def stop_training(training_id: str) -> Response:
    """End it; what it has learned becomes the checkpoint."""
    return _stop(training_id)
