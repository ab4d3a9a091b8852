"""Models: what users upload or name to train on; each is a checkpoint under another name.

sdfleet's trainer reads single files, so that a model is ready for training as soon as its checkpoint is
Active: archives are unpacked, pickles converted and every header checked on the way there, in the background
of the checkpoints service. No other conversion is needed.
"""

from collections.abc import Mapping
from typing import Any

from services.common.errors import BadRequest
from services.common.identity import Caller
from services.common.times import now
from services.training.errors import ModelNotFound, ModelNotReady
from services.training.model_repository import Model, ModelRepository
from services.training.neighbours import Neighbours, Viewer

BASE_TYPE = "Stable-diffusion"
STATES = ("Initial", "Creating", "Complete", "Fail")
HUB = "https://huggingface.co/"
SECRETS = frozenset({"new_model_token"})  # used, never stored


def state_of(checkpoint: Mapping[str, Any] | None) -> tuple[str, str | None]:
    """The model's state by its checkpoint's, and what went wrong."""
    if checkpoint is None:
        return "Fail", "its checkpoint was deleted"
    if checkpoint["type"] != BASE_TYPE:
        return "Fail", f"its checkpoint is of type {checkpoint['type']}, not {BASE_TYPE}"
    if checkpoint["status"] == "Active":
        return "Complete", None
    if checkpoint["status"] == "Disabled":
        return "Fail", "its checkpoint is Disabled"
    if checkpoint["stage"] == "failed":
        return "Fail", checkpoint["error"]
    return ("Initial" if checkpoint["stage"] == "uploading" else "Creating"), checkpoint["error"]


class Models:
    """What clients do with models."""

    def __init__(self, models: ModelRepository, neighbours: Neighbours) -> None:
        self._models = models
        self._neighbours = neighbours

    def create(self, caller: Caller, body: Mapping[str, Any], model_id: str) -> dict[str, Any]:
        """Keep a new model; the document, with `urls` where files are to be PUT."""
        viewer, params = Viewer.of(caller), dict(body["params"])
        wish = params.get("create_model_params")
        wish = dict(wish) if isinstance(wish, Mapping) else {}
        model: Model = {
            "_id": model_id,
            "name": body["name"],
            "model_type": body["model_type"],
            "user": caller.name,
            "created": now(),
            "own_checkpoint": True,
        }
        urls: dict[str, Any] = {}
        if body.get("checkpoint_id"):
            self._require(viewer, body["checkpoint_id"])
            model |= {"checkpoint_id": body["checkpoint_id"], "own_checkpoint": False}
        else:
            begun = self._neighbours.begin_model(viewer, _source(body, wish) | {"id": model_id})
            model["checkpoint_id"] = begun["checkpoint"]["id"]
            urls = begun["s3PresignUrl"]
        if wish:
            params["create_model_params"] = {name: wish[name] for name in wish if name not in SECRETS}
        self._models.add(model | {"params": params})
        return model | {"params": params, "urls": urls}

    def urls_of(self, caller: Caller, body: Mapping[str, Any], model: Model) -> dict[str, Any]:
        """Where the files of a model are to be PUT, also for a repeat of its creation."""
        if "urls" in model or not body.get("filenames"):
            return dict(model.get("urls") or {})
        wanted = _source(body, {}) | {"id": model["_id"]}
        return dict(self._neighbours.begin_model(Viewer.of(caller), wanted)["s3PresignUrl"])

    def complete(self, viewer: Viewer, model: Model, tags: Mapping[str, Any]) -> None:
        """The parts are uploaded. Raises Refused with the checkpoints service's sentence."""
        self._neighbours.complete_model(viewer, model["checkpoint_id"], tags)

    def with_states(self, viewer: Viewer, models: list[Model]) -> list[Model]:
        """The models with `status`, `error`, `s3_location` and `files` of their checkpoints."""
        found = self._neighbours.states(viewer, [model["checkpoint_id"] for model in models])
        shown = []
        for model in models:
            checkpoint = found.get(model["checkpoint_id"])
            status, error = state_of(checkpoint)
            shown.append(
                model
                | {
                    "status": status,
                    "error": error,
                    "s3_location": checkpoint["s3_location"] if checkpoint else "",
                    "files": checkpoint["names"] if checkpoint else [],
                }
            )
        return shown

    def delete(self, viewer: Viewer, model_ids: list[str], owner: str | None) -> None:
        """Forget models; the checkpoints that were uploaded for them go too."""
        gone = self._models.remove(model_ids, owner)
        own = [model["checkpoint_id"] for model in gone if model["own_checkpoint"]]
        if own:
            self._neighbours.delete_models(viewer, own)

    def get(self, caller: Caller, model_id: str) -> Model:
        """A model of the caller's. Raises ModelNotFound."""
        model = self._models.find(model_id, None if caller.may("train:all") else caller.name)
        if model is None:
            raise ModelNotFound(model_id)
        return model

    def _require(self, viewer: Viewer, checkpoint_id: str) -> None:
        found = self._neighbours.states(viewer, [checkpoint_id]).get(checkpoint_id)
        if found is None:
            raise BadRequest(f"checkpoint with id {checkpoint_id} not found")
        state, error = state_of(found)
        if state != "Complete":
            raise ModelNotReady(
                f"checkpoint {checkpoint_id} is {found['status']}, only an Active {BASE_TYPE} one can be a "
                f"model{': ' + error if error else ''}"
            )


def _source(body: Mapping[str, Any], wish: Mapping[str, Any]) -> dict[str, Any]:
    """What the checkpoints service is asked for: files to upload, or a URL to import."""
    params = {"message": f"model {body['name']}"}
    files = body.get("filenames") or []
    if files:
        if len(files) != 1:
            raise BadRequest(f"a model is one weight file, {len(files)} are named")
        return {"filenames": files, "params": params}
    url = wish.get("new_model_url") or wish.get("ckpt_path") or ""
    if not isinstance(url, str) or not url:
        raise BadRequest("give filenames, checkpoint_id or params.create_model_params.new_model_url")
    if wish.get("from_hub") and not url.startswith(("http://", "https://")):
        raise BadRequest(
            "new_model_url must be the address of one weight file "
            f"({HUB}OWNER/NAME/resolve/main/FILE.safetensors), folders of the hub are not read"
        )
    token = wish.get("new_model_token") or None
    if token is not None and not isinstance(token, str):
        raise BadRequest("params.create_model_params.new_model_token must be text")
    return {"urls": [url], "params": params, "token": token}
