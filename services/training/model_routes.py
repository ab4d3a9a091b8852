"""The public routes of models."""

from typing import Any

from services.common.idempotency import create_once
from services.common.identity import current_caller, requires
from services.common.paging import next_key
from services.common.web import ServiceBlueprint
from services.training.neighbours import Viewer
from services.training.presentation import shown_model
from services.training.schemas import (
    CompletedModel,
    ModelIds,
    ModelPage,
    ModelQuery,
    NamedCompletedModel,
    NewModel,
    OneJob,
)
from services.training.wiring import current_parts

blp = ServiceBlueprint("models", __name__, description="Models that are trained on")


def _owner() -> str | None:
    caller = current_caller()
    return None if caller.may("train:all") else caller.name


@blp.route("/models", methods=["POST"])
@blp.arguments(NewModel)
@blp.answers(201, OneJob, "Created")
@requires("train:create")
def create_model(body: dict[str, Any]) -> dict[str, Any]:
    """A model of an uploaded file, an existing checkpoint, or a URL."""
    parts, viewer = current_parts(), Viewer.of(current_caller())
    made = create_once(
        lambda made_id: parts.models.create(current_caller(), body, made_id),
        parts.model_repository.get,
        "created",
    )
    (model,) = parts.models.with_states(viewer, [made])
    job = shown_model(model) | {"s3_base": model["s3_location"]}
    urls = parts.models.urls_of(current_caller(), body, made)
    return {"job": job | {"s3PresignUrl": urls}, "s3PresignUrl": urls}


def _complete(model_id: str, body: dict[str, Any]) -> dict[str, Any]:
    parts, caller = current_parts(), current_caller()
    model, viewer = parts.models.get(caller, model_id), Viewer.of(caller)
    (shown,) = parts.models.with_states(viewer, [model])
    if body["multi_parts_tags"] or shown["status"] == "Initial":
        parts.models.complete(viewer, model, body["multi_parts_tags"] or {})
    (shown,) = parts.models.with_states(viewer, [model])
    return {
        "job": {
            "id": model["_id"],
            "output_path": shown["s3_location"],
            "endpointName": None,
            "jobStatus": shown["status"],
            "jobType": model["model_type"],
            "error": shown["error"],
        }
    }


@blp.route("/models/<model_id>", methods=["PUT"])
@blp.arguments(CompletedModel)
@blp.answers(200, OneJob)
@requires("train:update")
def complete_model(body: dict[str, Any], model_id: str) -> dict[str, Any]:
    """The file is uploaded: it is put together and checked."""
    return _complete(model_id, body)


@blp.route("/models", methods=["PUT"])
@blp.arguments(NamedCompletedModel)
@blp.answers(200, OneJob)
@requires("train:update")
def complete_named_model(body: dict[str, Any]) -> dict[str, Any]:
    """The same, with the id in the body, as older clients send it."""
    return _complete(body["model_id"], body)


@blp.route("/models", methods=["GET"])
@blp.arguments(ModelQuery, location="query")
@blp.answers(200, ModelPage)
@requires("train:list")
def list_models(query: dict[str, Any]) -> dict[str, Any]:
    """The caller's models, newest first."""
    parts, viewer = current_parts(), Viewer.of(current_caller())
    filters: dict[str, Any] = {"model_type": {"$in": query["types"]}} if query["types"] else {}
    found = parts.model_repository.page(_owner(), filters, query["limit"], query["last_evaluated_key"])
    models = parts.models.with_states(viewer, found[: query["limit"]])
    wanted = query["status"]
    return {
        "models": [shown_model(model) for model in models if not wanted or model["status"] in wanted],
        "last_evaluated_key": next_key(found, query["limit"], "created"),
    }


@blp.route("/models", methods=["DELETE"])
@blp.arguments(ModelIds)
@blp.answers(204)
@requires("train:delete")
def delete_models(body: dict[str, Any]) -> None:
    """Delete one's own models, with the files that were uploaded for them."""
    current_parts().models.delete(Viewer.of(current_caller()), body["model_id_list"], _owner())
