"""Every query and index of the collection `models`."""

from collections.abc import Iterable, Mapping
from typing import Any

from pymongo import DESCENDING

from services.common.indexes import ensure_index
from services.common.mongo import Documents
from services.common.paging import after

Model = dict[str, Any]
NEWEST_FIRST = [("created", DESCENDING), ("_id", DESCENDING)]


class ModelRepository:
    """The models: names for checkpoints that are trained on."""

    def __init__(self, database: Documents) -> None:
        self._models = database["models"]

    def ensure_indexes(self) -> None:
        """Make the index of the list."""
        ensure_index(self._models, [("user", 1), *NEWEST_FIRST])

    def add(self, model: Model) -> Model:
        """Keep a new model; raises DuplicateKeyError when its id is taken."""
        self._models.insert_one(model)
        return model

    def get(self, model_id: str) -> Model | None:
        """A model by its id, whoever asks."""
        return self._models.find_one({"_id": model_id})

    def find(self, model_id: str, owner: str | None) -> Model | None:
        """A model; `owner` None sees everybody's."""
        return self._models.find_one({"_id": model_id} | _owned_by(owner))

    def page(
        self, owner: str | None, filters: Mapping[str, Any], limit: int, last_key: str | None
    ) -> list[Model]:
        """Up to `limit` + 1 models, newest first."""
        query = _owned_by(owner) | dict(filters) | after(last_key, "created")
        return list(self._models.find(query).sort(NEWEST_FIRST).limit(limit + 1))

    def remove(self, model_ids: Iterable[str], owner: str | None) -> list[Model]:
        """Forget models; those that were there."""
        query = {"_id": {"$in": list(model_ids)}} | _owned_by(owner)
        found = list(self._models.find(query))
        self._models.delete_many({"_id": {"$in": [model["_id"] for model in found]}})
        return found


def _owned_by(owner: str | None) -> dict[str, Any]:
    return {} if owner is None else {"user": owner}
