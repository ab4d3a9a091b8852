"""The public routes of checkpoints."""

import math
from typing import Any

from flask import Response, request

from services.checkpoints.changes import apply_changes
from services.checkpoints.checkpoint import Checkpoint, Viewer
from services.checkpoints.creation import create_once, new_import, new_upload
from services.checkpoints.errors import CheckpointNotFound, NotTheCreator
from services.checkpoints.presentation import shown, shown_upload, shown_with_urls
from services.checkpoints.schemas import (
    ChangedCheckpoint,
    CheckpointIds,
    CheckpointPage,
    CheckpointQuery,
    CheckpointShape,
    CreatedCheckpoint,
    NamedChange,
    NewCheckpoint,
    OneCheckpoint,
    UploadList,
)
from services.checkpoints.wiring import current_parts
from services.common.envelope import answer
from services.common.identity import current_caller, requires
from services.common.paging import LARGEST_PAGE, next_key
from services.common.web import ServiceBlueprint

DEFAULT_PER_PAGE = 10

blp = ServiceBlueprint("checkpoints", __name__, description="Checkpoint files")


def _visible(checkpoint_id: str) -> Checkpoint:
    viewer = Viewer.of(current_caller())
    checkpoint = current_parts().repository.find_visible(checkpoint_id, viewer)
    if checkpoint is None:
        raise CheckpointNotFound(checkpoint_id)
    return checkpoint


def _own(checkpoint_id: str) -> Checkpoint:
    checkpoint = _visible(checkpoint_id)
    if not Viewer.of(current_caller()).owns(checkpoint):
        raise NotTheCreator(checkpoint_id)
    return checkpoint


@blp.route("/checkpoints", methods=["POST"])
@blp.arguments(NewCheckpoint)
@blp.answers(201, CreatedCheckpoint, "Created")
@requires("checkpoint:create")
def create_checkpoint(body: dict[str, Any]) -> dict[str, Any] | Response:
    """Begin a checkpoint: a URL for each part of each file, or an import in the background."""
    parts, key = current_parts(), request.headers.get("Idempotency-Key")
    if "urls" in body:
        checkpoint = create_once(parts.repository, new_import(parts, current_caller(), body, key))
        parts.background.fetch(checkpoint.id)
        dumped = CheckpointShape().dump(shown(checkpoint, parts.storage))
        return answer(202, "Checkpoint creation in progress, please check later", {"checkpoint": dumped})
    made = new_upload(parts, current_caller(), body, key)
    checkpoint = parts.uploads.begin(create_once(parts.repository, made).id)
    return shown_with_urls(checkpoint, parts.storage, parts.uploads)


@blp.route("/checkpoints", methods=["GET"])
@blp.arguments(CheckpointQuery, location="query")
@blp.answers(200, CheckpointPage)
@requires("checkpoint:list")
def list_checkpoints(query: dict[str, Any]) -> dict[str, Any]:
    """The checkpoints that the caller may see, newest first."""
    parts, viewer = current_parts(), Viewer.of(current_caller())
    by_page = query["page"] is not None or query["per_page"] is not None
    by_key = not by_page and (query["limit"] is not None or query["last_evaluated_key"] is not None)
    page = query["page"] or 1
    size = (query["per_page"] or DEFAULT_PER_PAGE) if by_page else (query["limit"] or LARGEST_PAGE)
    found = parts.repository.list_page(
        viewer, query, size, query["last_evaluated_key"] if by_key else None, skip=(page - 1) * size
    )
    answered = {
        "checkpoints": [shown(checkpoint, parts.storage) for checkpoint in found[:size]],
        "last_evaluated_key": next_key(
            [{"_id": one.id, "created": one.created} for one in found], size, "created"
        ),
    }
    if by_key:
        return answered
    total = parts.repository.count(viewer, query)
    return answered | {"page": page, "per_page": size, "pages": math.ceil(total / size), "total": total}


@blp.route("/checkpoints", methods=["DELETE"])
@blp.arguments(CheckpointIds)
@blp.answers(204)
@requires("checkpoint:delete")
def delete_checkpoints(body: dict[str, Any]) -> None:
    """Delete one's own checkpoints: objects, unfinished uploads and records."""
    current_parts().deletion.delete(body["checkpoint_id_list"], Viewer.of(current_caller()))


@blp.route("/checkpoints/<checkpoint_id>", methods=["GET"])
@blp.answers(200, OneCheckpoint)
@requires("checkpoint:list")
def get_checkpoint(checkpoint_id: str) -> dict[str, Any]:
    """One checkpoint."""
    return {"checkpoint": shown(_visible(checkpoint_id), current_parts().storage)}


@blp.route("/checkpoints/<checkpoint_id>", methods=["PUT"])
@blp.arguments(ChangedCheckpoint)
@blp.answers(200, OneCheckpoint)
@requires("checkpoint:update")
def update_checkpoint(body: dict[str, Any], checkpoint_id: str) -> Response:
    """Complete the uploads, disable, re-enable, rename or edit."""
    return _update(checkpoint_id, body)


@blp.route("/checkpoints", methods=["PUT"])
@blp.arguments(NamedChange)
@blp.answers(200, OneCheckpoint)
@requires("checkpoint:update")
def update_named_checkpoint(body: dict[str, Any]) -> Response:
    """The same with `checkpoint_id` in the body: how older clients send it."""
    return _update(body.pop("checkpoint_id"), body)


def _update(checkpoint_id: str, body: dict[str, Any]) -> Response:
    parts = current_parts()
    checkpoint = apply_changes(parts, current_caller(), _own(checkpoint_id), body)
    dumped = CheckpointShape().dump(shown(checkpoint, parts.storage))
    if checkpoint.busy_with:
        message = f"Checkpoint {checkpoint.busy_with} in progress, please check later"
        return answer(202, message, {"checkpoint": dumped}, checkpoint=dumped)
    return answer(200, "OK", {"checkpoint": dumped}, checkpoint=dumped)


@blp.route("/checkpoints/<checkpoint_id>/uploads", methods=["GET"])
@blp.answers(200, UploadList)
@requires("checkpoint:update")
def list_uploads(checkpoint_id: str) -> dict[str, Any]:
    """The parts that arrived, and fresh URLs for the missing ones."""
    checkpoint = _own(checkpoint_id)
    arrived = current_parts().uploads.arrived(checkpoint)
    return {
        "checkpoint_id": checkpoint.id,
        "status": checkpoint.status,
        "uploads": [shown_upload(one) for one in arrived],
    }
