"""What clients ask before they make a job: which models there are, and where a file of theirs may be put."""

from typing import Any

from services.common.identity import current_caller, requires
from services.common.web import ServiceBlueprint
from services.inference.current import current_parts
from services.inference.schemas import MODEL_NAMES, UPLOAD_URL, UploadQuery
from services.inference.upload_places import place_of

blueprint = ServiceBlueprint("models", __name__, description="Model lists, and uploads by clients")


@blueprint.route("/inference/get-texual-inversion-list", methods=["GET"])
@blueprint.route("/inferences/get-texual-inversion-list", methods=["GET"])
@blueprint.answers(200, MODEL_NAMES)
@requires("inference:list")
def list_embeddings() -> list[str]:
    """File names of the embeddings that the caller may use."""
    return _names_of("embeddings")


@blueprint.route("/inference/get-lora-list", methods=["GET"])
@blueprint.route("/inferences/get-lora-list", methods=["GET"])
@blueprint.answers(200, MODEL_NAMES)
@requires("inference:list")
def list_loras() -> list[str]:
    """File names of the LoRAs that the caller may use."""
    return _names_of("Lora")


@blueprint.route("/inference/get-hypernetwork-list", methods=["GET"])
@blueprint.route("/inferences/get-hypernetwork-list", methods=["GET"])
@blueprint.answers(200, MODEL_NAMES)
@requires("inference:list")
def list_hypernetworks() -> list[str]:
    """File names of the hypernetworks that the caller may use."""
    return _names_of("hypernetworks")


@blueprint.route("/inference/get-controlnet-model-list", methods=["GET"])
@blueprint.route("/inferences/get-controlnet-model-list", methods=["GET"])
@blueprint.answers(200, MODEL_NAMES)
@requires("inference:list")
def list_controlnets() -> list[str]:
    """File names of the ControlNet models that the caller may use."""
    return _names_of("ControlNet")


def _names_of(kind: str) -> list[str]:
    caller = current_caller()
    question = {
        "username": caller.name,
        "roles": list(caller.roles),
        "see_all": caller.may("checkpoint:all"),
        "type": kind,
    }
    names: list[str] = current_parts().checkpoints.call("/internal/usable", question)["names"]
    return names


@blueprint.route("/inference/generate-s3-presigned-url-for-uploading", methods=["GET"])
@blueprint.route("/inferences/generate-s3-presigned-url-for-uploading", methods=["GET"])
@blueprint.arguments(UploadQuery, location="query")
@blueprint.answers(200, UPLOAD_URL)
@requires("checkpoint:create")
def upload_url(query: dict[str, Any]) -> str:
    """A URL to PUT a file of one's own to, under one's own prefix of the platform's bucket."""
    store = current_parts().store
    key = place_of(current_caller().name, query["key"], query["s3_bucket_name"], store.bucket)
    return store.presign_put(key)
