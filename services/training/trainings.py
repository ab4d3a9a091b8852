"""Creates, starts, stops and deletes trainings."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from services.common.backends import BackendName
from services.common.errors import BadRequest
from services.common.identity import Caller
from services.common.times import now
from services.training.concepts import concepts_of, flattened
from services.training.errors import JobNotFound, ModelNotFound, ModelNotReady, NotYet, WrongState
from services.training.finishing import Finishing
from services.training.model_repository import ModelRepository
from services.training.models import BASE_TYPE, state_of
from services.training.names import checkpoint_id_of
from services.training.neighbours import Neighbours, Viewer
from services.training.repository import TRAINING, Work, WorkRepository
from services.training.states import SHOWN, Status
from services.training.storage import WorkStorage

ENDING = ".safetensors"
NAMES_OF_RESULT = ("output_name", "custom_model_name", "lora_name", "save_model_name")
INSTANCE_TYPE = re.compile(r"ml\.[a-z0-9-]{1,20}\.[a-z0-9]{1,20}")


class Trainings:
    """The client's side of a training's life."""

    def __init__(
        self,
        work: WorkRepository,
        models: ModelRepository,
        storage: WorkStorage,
        neighbours: Neighbours,
        finishing: Finishing,
        backends: Sequence[str],
    ) -> None:
        self._backends = backends
        self._work = work
        self._models = models
        self._storage = storage
        self._neighbours = neighbours
        self._finishing = finishing

    def create(self, caller: Caller, body: Mapping[str, Any], work_id: str) -> Work:
        """Keep a new training. Raises BadRequest, ModelNotFound, DuplicateKeyError for a repeat."""
        params = body["params"]
        training, config = params.get("training_params") or {}, params.get("config_params") or {}
        if not isinstance(training, Mapping) or not isinstance(config, Mapping):
            raise BadRequest("params.training_params and params.config_params must be objects")
        config = flattened(config)
        viewer = Viewer.of(caller)
        model_name = self._model_name(viewer, caller, body.get("model_id"), training)
        concepts = concepts_of(training, config, self._storage.objects.bucket)
        for name in _datasets(concepts):
            self._visible(viewer, name)
        backend, instance_type = chosen_backend(training, self._backends)
        moment = now()
        return self._work.add(
            new_work(TRAINING, viewer, work_id)
            | {
                "train_type": body["train_type"],
                "model_id": body.get("model_id"),
                "model_name": model_name,
                "params": dict(params),
                "concepts": concepts,
                "instance_type": instance_type,
                "backend": backend,
                "use_lora": uses_lora(config),
                "history": [{"status": Status.CREATED, "actor": caller.name, "at": moment}],
            }
        )

    def start(self, caller: Caller, work: Work) -> Work:
        """created → queued; what waits or runs already stays. Raises what is in the way."""
        if work["status"] != Status.CREATED:
            return _started(work)
        own = caller.name == work["user"]  # an administrator starts it with its owner's rights
        viewer = Viewer.of(caller) if own else Viewer.kept(work["viewer"])
        base = self._base(viewer, work)
        for name in _datasets(work["concepts"]):
            self._visible(viewer, name, to_train=True)
        checkpoint = self._neighbours.reserve(
            {
                "id": checkpoint_id_of(work["_id"]),
                "type": "Lora" if work["use_lora"] else BASE_TYPE,
                "filename": result_name(work),
                "creator": work["user"],
                "allowed": list(viewer.roles),
                "params": {"message": f"trained as {work['_id']}", "training_id": work["_id"]},
            }
        )
        queued = self._work.queue(
            work["_id"],
            caller.name,
            {
                "base": {"type": base["type"], "name": base["name"]},
                "files": [{"id": base["id"]}],
                "checkpoint_id": checkpoint["id"],
                "result_name": result_name(work),
                "viewer": vars(viewer) | {"roles": list(viewer.roles)},
                "cleaned": False,
            },
        )
        if queued is not None:
            return queued
        try:
            return _started(self._current(work))
        except JobNotFound:  # it was deleted meanwhile, perhaps before its checkpoint was there
            self._neighbours.give_up(checkpoint["id"], "the training was deleted")
            raise

    def stop(self, caller: Caller, work: Work) -> Work:
        """Its worker ends it and what it has learned becomes the checkpoint; what only waits ends at once."""
        stopped = self._work.stop_waiting(work["_id"], caller.name)
        if stopped is not None:
            self._finishing.clean(stopped)
            return stopped
        wanted = self._work.want_stop(work["_id"])
        if wanted is not None:
            return wanted
        current = self._current(work)
        if current["status"] in {Status.FINISHING, Status.STOPPED}:
            return current
        raise WrongState(f"training {work['_id']} is {SHOWN[current['status']]}, there is nothing to stop")

    def delete(self, work_ids: list[str], owner: str | None) -> None:
        """Forget trainings, with what they keep in S3; a checkpoint that is Active stays."""
        for work in self._work.mark_deleted(work_ids, owner):
            self._finishing.forget(work)

    def _current(self, work: Work) -> Work:
        current = self._work.get(work["_id"])
        if current is None:
            raise JobNotFound(work["_id"])
        return current

    def _visible(self, viewer: Viewer, name: str, to_train: bool = False) -> None:
        if to_train:
            try:
                self._neighbours.pictures(viewer, name)
            except NotYet:
                return  # it is verified by the time a worker comes
            return
        self._neighbours.require_dataset(viewer, name)

    def _model_name(
        self, viewer: Viewer, caller: Caller, model_id: str | None, training: Mapping[str, Any]
    ) -> str:
        if model_id:
            model = self._models.find(model_id, None if caller.may("train:all") else caller.name)
            if model is None:
                raise ModelNotFound(model_id)
            return str(model["name"])
        name = training.get("model")
        if not isinstance(name, str) or not name:
            raise BadRequest(
                "name what to train: model_id, or a checkpoint's file name in training_params.model"
            )
        self._neighbours.resolve(viewer, [(BASE_TYPE, name)])
        return name

    def _base(self, viewer: Viewer, work: Work) -> dict[str, Any]:
        name = work["model_name"]
        if work["model_id"]:
            model = self._models.get(work["model_id"])
            if model is None:
                raise ModelNotFound(work["model_id"])
            found = self._neighbours.states(viewer, [model["checkpoint_id"]]).get(model["checkpoint_id"])
            state, error = state_of(found)
            if state != "Complete" or found is None:
                reason = f": {error}" if error else ""
                raise ModelNotReady(
                    f"model {model['name']} is {state}, only one that is Complete can be trained{reason}"
                )
            name = found["names"][0]
        return self._neighbours.resolve(viewer, [(BASE_TYPE, name)])[0]


def new_work(kind: str, viewer: Viewer, work_id: str) -> Work:
    """Work that is not kept yet."""
    return {
        "_id": work_id,
        "kind": kind,
        "status": Status.CREATED,
        "user": viewer.username,
        "viewer": vars(viewer) | {"roles": list(viewer.roles)},
        "created": now(),
        "attempt": 0,
        "failures": [],
        "files": [],
        "losses": [],
        "samples": [],
        "saves": [],
        "state": None,
        "instance_type": None,
        "backend": BackendName.LOCAL,
        "stop_wanted": False,
    }


def chosen_backend(training: Mapping[str, Any], backends: Sequence[str]) -> tuple[str, str | None]:
    """Who trains, and on which type of instance. Raises BadRequest.

    The named backend; else SageMaker for its own instance types where the deployment has it.
    """
    instance_type, named = training.get("training_instance_type") or None, training.get("backend") or None
    if instance_type is not None and (not isinstance(instance_type, str) or len(instance_type) > 100):
        raise BadRequest("training_params.training_instance_type must be text of at most 100 characters")
    if named is not None and named not in backends:
        raise BadRequest(f"training_params.backend must be one of {', '.join(backends)}")
    if named is None:
        theirs = INSTANCE_TYPE.fullmatch(instance_type or "") and BackendName.SAGEMAKER in backends
        named = BackendName.SAGEMAKER if theirs or BackendName.LOCAL not in backends else BackendName.LOCAL
    if named == BackendName.SAGEMAKER and not INSTANCE_TYPE.fullmatch(instance_type or ""):
        raise BadRequest(
            "training_params.training_instance_type must be one of SageMaker's, such as ml.g5.2xlarge"
        )
    return str(named), instance_type


def uses_lora(config: Mapping[str, Any]) -> bool:
    """Whether a LoRA is trained, which is the default."""
    return str(config.get("use_lora", True)).lower() not in {"false", "0"}


def result_name(work: Work) -> str:
    """The file name of the checkpoint that the training makes."""
    params = work["params"]
    for holder in (params.get("config_params") or {}, params.get("training_params") or {}):
        said = flattened(holder)
        for name in NAMES_OF_RESULT:
            if isinstance(said.get(name), str) and said[name]:
                return str(said[name]).removesuffix(ENDING) + ENDING
    kind = "lora" if work["use_lora"] else "model"
    return f"{kind}-{work['_id'][:8]}{ENDING}"


def _datasets(concepts: list[dict[str, Any]]) -> list[str]:
    named = [concept[key] for concept in concepts for key in ("dataset", "class_dataset")]
    return [name for name in dict.fromkeys(named) if name]


def _started(work: Work) -> Work:
    if work["status"] in {Status.QUEUED, Status.RUNNING, Status.FINISHING}:
        return work
    raise WrongState(
        f"training {work['_id']} is {SHOWN[work['status']]}, it cannot be started again: create another one"
    )
