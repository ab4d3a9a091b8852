"""What training asks of the checkpoints and datasets services, on behalf of a user."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from services.common.identity import Caller
from services.common.service_client import ServiceClient
from services.training.errors import CheckpointNotFound, NotYet, Refused, UnusableData

ENABLED = "Enabled"


@dataclass(frozen=True)
class Viewer:
    """The user on whose behalf is asked."""

    username: str
    roles: tuple[str, ...]
    sees_checkpoints: bool = False
    sees_datasets: bool = False

    @classmethod
    def of(cls, caller: Caller) -> Self:
        """The user behind a request."""
        return cls(caller.name, caller.roles, caller.may("checkpoint:all"), caller.may("train:all"))

    @classmethod
    def kept(cls, document: Mapping[str, Any]) -> Self:
        """The user as their work remembers them."""
        return cls(**{**document, "roles": tuple(document["roles"])})


class Neighbours:
    """Every question raises Unavailable when nobody answers."""

    def __init__(self, checkpoints: ServiceClient, adopting: ServiceClient, datasets: ServiceClient) -> None:
        self._checkpoints = checkpoints
        self._adopting = adopting  # a copy of several GB takes its time
        self._datasets = datasets

    # checkpoints

    def resolve(self, viewer: Viewer, wanted: Iterable[tuple[str, str]]) -> list[dict[str, Any]]:
        """The Active files of these (type, name), in this order. Raises CheckpointNotFound."""
        asked = list(wanted)
        models: dict[str, list[str]] = {}
        for kind, name in asked:
            models.setdefault(kind, []).append(name)
        found = self._checkpoints.call(
            "/internal/resolve", self._who(viewer, viewer.sees_checkpoints) | {"models": models}
        )
        if found["missing"]:
            first = found["missing"][0]
            raise CheckpointNotFound(first["name"], first["type"])
        by_name = {(model["type"], model["name"]): model for model in found["models"]}
        return [by_name[one] for one in asked]

    def reserve(self, checkpoint: Mapping[str, Any]) -> dict[str, Any]:
        """An Initial checkpoint that this service is going to make. Raises Refused."""
        return dict(
            self._told(self._checkpoints.call("/internal/checkpoints/reserve", dict(checkpoint)))[
                "checkpoint"
            ]
        )

    def note_progress(self, checkpoint_id: str, progress: Mapping[str, Any]) -> bool:
        """How far its making is; False when it is no longer made."""
        body = {"id": checkpoint_id, "progress": dict(progress)}
        return bool(self._checkpoints.call("/internal/checkpoints/progress", body)["noted"])

    def adopt(self, checkpoint_id: str, key: str, params: Mapping[str, Any]) -> str | None:
        """The object becomes the checkpoint's file; why not, else None."""
        body = {"id": checkpoint_id, "key": key, "params": dict(params)}
        error = self._adopting.call("/internal/checkpoints/adopt", body)["error"]
        return str(error) if error else None

    def give_up(self, checkpoint_id: str, reason: str) -> None:
        """The checkpoint is not going to be made."""
        self._checkpoints.call("/internal/checkpoints/give-up", {"id": checkpoint_id, "error": reason})

    def begin_model(self, viewer: Viewer, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """A checkpoint for a model that is uploaded or imported. Raises Refused."""
        body = self._who(viewer, viewer.sees_checkpoints) | dict(wanted)
        return self._told(self._checkpoints.call("/internal/checkpoints/begin", body))

    def complete_model(self, viewer: Viewer, checkpoint_id: str, tags: Mapping[str, Any]) -> None:
        """The model's parts are uploaded. Raises Refused."""
        body = self._who(viewer, viewer.sees_checkpoints) | {"id": checkpoint_id, "tags": dict(tags)}
        self._told(self._adopting.call("/internal/checkpoints/complete", body))

    def states(self, viewer: Viewer, checkpoint_ids: Iterable[str]) -> dict[str, dict[str, Any]]:
        """What became of these checkpoints, by id."""
        ids = list(checkpoint_ids)
        if not ids:
            return {}
        body = self._who(viewer, viewer.sees_checkpoints) | {"ids": ids}
        return dict(self._checkpoints.call("/internal/checkpoints/states", body)["checkpoints"])

    def delete_models(self, viewer: Viewer, checkpoint_ids: Iterable[str]) -> None:
        """Delete checkpoints that were made for models."""
        body = self._who(viewer, viewer.sees_checkpoints) | {"ids": list(checkpoint_ids)}
        self._checkpoints.call("/internal/checkpoints/delete", body)

    # data sets

    def require_dataset(self, viewer: Viewer, name: str) -> None:
        """Raise UnusableData unless the user sees a data set of this name."""
        self._dataset(viewer, name)

    def pictures(self, viewer: Viewer, name: str) -> list[dict[str, Any]]:
        """The pictures of a data set. Raises UnusableData with the reason, NotYet while it is verified."""
        dataset = self._dataset(viewer, name)
        if dataset["status"] != ENABLED:
            raise UnusableData(f"dataset {name} is {dataset['status']}, enable it before it is trained on")
        if dataset["verifying"]:
            raise NotYet
        if not dataset["pictures"]:
            faulty = dataset["faulty"]
            why = f"all its {faulty} pictures have problems" if faulty else "it is empty"
            raise UnusableData(f"dataset {name} has no picture to train on: {why}, see GET /datasets/{name}")
        return list(dataset["pictures"])

    def _dataset(self, viewer: Viewer, name: str) -> dict[str, Any]:
        body = self._who(viewer, viewer.sees_datasets) | {"names": [name]}
        found = self._datasets.call("/internal/datasets/resolve", body)
        if found["missing"]:
            raise UnusableData(f"dataset {name} is not found")
        return dict(found["datasets"][0])

    @staticmethod
    def _who(viewer: Viewer, see_all: bool) -> dict[str, Any]:
        return {"username": viewer.username, "roles": list(viewer.roles), "see_all": see_all}

    @staticmethod
    def _told(answer: dict[str, Any]) -> dict[str, Any]:
        if answer.get("error"):
            raise Refused(str(answer["error"]))
        return answer
