"""What other services ask of checkpoints."""

from typing import Any

from services.checkpoints import making
from services.checkpoints.checkpoint import Viewer
from services.checkpoints.schemas import (
    Adoption,
    GivenUp,
    MadeProgress,
    ModelCompletion,
    ModelUpload,
    NamesOfType,
    Reservation,
    Resolved,
    ResolveRequest,
    StatesRequest,
    UsableNames,
)
from services.checkpoints.wiring import current_parts
from services.common.errors import ApiError
from services.common.identity import for_services
from services.common.paging import LARGEST_PAGE
from services.common.web import ServiceBlueprint

blp = ServiceBlueprint("internal", __name__, description="For the other services")


@blp.route("/internal/resolve", methods=["POST"])
@blp.arguments(ResolveRequest)
@blp.response(200, Resolved)
@for_services
def resolve(body: dict[str, Any]) -> dict[str, Any]:
    """The Active files of these types and names that the user may use, and those that are not there.

    Those that are there stay so for a while: whoever asks is about to keep a job that needs them.
    """
    parts = current_parts()
    viewer = Viewer(body["username"], tuple(body["roles"]), body["see_all"])
    found: dict[tuple[str, str], dict[str, Any]] = {}
    usable = parts.repository.find_usable(viewer, body["models"])
    for checkpoint in parts.repository.promise(usable, parts.config.promised_seconds):
        for file in checkpoint.files:
            found[checkpoint.type, file.name] = {
                "type": checkpoint.type,
                "name": file.name,
                "id": checkpoint.id,
                "s3_location": parts.storage.location(checkpoint.type, checkpoint.id),
                "bucket": parts.storage.bucket,
                "key": file.key,
                "size": file.size,
                "etag": file.etag,
                "sha256": file.sha256,
            }
    asked = [(kind, name) for kind, names in body["models"].items() for name in dict.fromkeys(names)]
    return {
        "models": [found[one] for one in asked if one in found],
        "missing": [{"type": kind, "name": name} for kind, name in asked if (kind, name) not in found],
    }


@blp.route("/internal/usable", methods=["POST"])
@blp.arguments(NamesOfType)
@blp.response(200, UsableNames)
@for_services
def usable(body: dict[str, Any]) -> dict[str, Any]:
    """The names of the Active files of a type that the user may use, newest first."""
    viewer = Viewer(body["username"], tuple(body["roles"]), body["see_all"])
    return {"names": current_parts().repository.usable_names(viewer, body["type"], LARGEST_PAGE)}


# What the training service makes. A refusal is part of the answer: its sentence is for the client.


def _refused(reason: ApiError) -> dict[str, Any]:
    return {"error": reason.message, "status": reason.status}


@blp.route("/internal/checkpoints/reserve", methods=["POST"])
@blp.arguments(Reservation)
@for_services
def reserve(body: dict[str, Any]) -> dict[str, Any]:
    """An Initial checkpoint whose file is going to be made."""
    try:
        return {"checkpoint": making.reserve(current_parts(), body)}
    except ApiError as reason:
        return _refused(reason)


@blp.route("/internal/checkpoints/progress", methods=["POST"])
@blp.arguments(MadeProgress)
@for_services
def note_progress(body: dict[str, Any]) -> dict[str, Any]:
    """How far it is."""
    return {"noted": current_parts().repository.note_making(body["id"], body["progress"])}


@blp.route("/internal/checkpoints/adopt", methods=["POST"])
@blp.arguments(Adoption)
@for_services
def adopt(body: dict[str, Any]) -> dict[str, Any]:
    """The file is made: it becomes the checkpoint's."""
    return {"error": making.adopt(current_parts(), body["id"], body["key"], body["params"])}


@blp.route("/internal/checkpoints/give-up", methods=["POST"])
@blp.arguments(GivenUp)
@for_services
def give_up(body: dict[str, Any]) -> dict[str, Any]:
    """The file is not going to be made."""
    making.give_up(current_parts(), body["id"], body["error"])
    return {}


@blp.route("/internal/checkpoints/begin", methods=["POST"])
@blp.arguments(ModelUpload)
@for_services
def begin(body: dict[str, Any]) -> dict[str, Any]:
    """A model that a user uploads, or that is imported for them."""
    try:
        return making.begin_for(current_parts(), body)
    except ApiError as reason:
        return _refused(reason)


@blp.route("/internal/checkpoints/complete", methods=["POST"])
@blp.arguments(ModelCompletion)
@for_services
def complete(body: dict[str, Any]) -> dict[str, Any]:
    """The parts of a model are uploaded."""
    viewer = Viewer(body["username"], tuple(body["roles"]), body["see_all"])
    try:
        making.complete_for(current_parts(), body["id"], body["tags"], viewer)
    except ApiError as reason:
        return _refused(reason)
    return {}


@blp.route("/internal/checkpoints/states", methods=["POST"])
@blp.arguments(StatesRequest)
@for_services
def states(body: dict[str, Any]) -> dict[str, Any]:
    """What became of these checkpoints, as far as the user sees them."""
    viewer = Viewer(body["username"], tuple(body["roles"]), body["see_all"])
    return {"checkpoints": making.states(current_parts(), body["ids"], viewer)}


@blp.route("/internal/checkpoints/delete", methods=["POST"])
@blp.arguments(StatesRequest)
@for_services
def delete(body: dict[str, Any]) -> dict[str, Any]:
    """A user deletes the models that were uploaded for them."""
    viewer = Viewer(body["username"], tuple(body["roles"]), body["see_all"])
    current_parts().deletion.delete(body["ids"], viewer)
    return {}
