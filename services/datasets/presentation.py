"""Data sets as clients and trainings see them."""

from collections.abc import Sequence
from typing import Any

from services.common.times import as_epoch
from services.datasets.names import is_caption
from services.datasets.repository import Dataset, Item
from services.datasets.states import DISABLED, ENABLED
from services.datasets.storage import DatasetStorage


def listed(dataset: Dataset, counts: dict[str, int], storage: DatasetStorage) -> dict[str, Any]:
    """An entry of the list: the client's own params, beside what this service says."""
    return dataset["params"] | {
        "datasetName": dataset["name"],
        "s3": storage.location(dataset["name"], dataset["prefix"]),
        "status": dataset["status"],
        "timestamp": as_epoch(dataset["created"]),
        "creator": dataset["creator"],
        "files": sum(counts.values()),
        "problems": counts.get(DISABLED, 0),
    }


def shown(dataset: Dataset, items: Sequence[Item], storage: DatasetStorage) -> dict[str, Any]:
    """The members of OneDataset."""
    making = dataset.get("making")
    return {
        "dataset_name": dataset["name"],
        "datasetName": dataset["name"],
        "s3": storage.location(dataset["name"], dataset["prefix"]),
        "status": dataset["status"],
        "timestamp": as_epoch(dataset["created"]),
        "creator": dataset["creator"],
        "allowed_roles_or_users": dataset["allowed"],
        "verifying": bool(dataset.get("verify_wanted")),
        "making": {name: making.get(name) for name in ("done", "total", "width", "height")}
        if making
        else None,
        "error": dataset.get("error"),
        "params": dataset["params"],
        "data": [_item(item, storage) for item in items],
    }


def _item(item: Item, storage: DatasetStorage) -> dict[str, Any]:
    return {
        "key": item["key"],
        "filename": item["filename"],
        "name": item["name"],
        "type": item["type"],
        "preview_url": storage.preview_url(item["key"]) if item.get("etag") else None,
        "dataStatus": item["status"],
        "caption": item.get("caption"),
        "problems": item["problems"],
        "width": item.get("width"),
        "height": item.get("height"),
        "params": item["params"],
    }


def resolved(dataset: Dataset, items: Sequence[Item]) -> dict[str, Any]:
    """The members of ResolvedDataset."""
    pictures = [item for item in items if not is_caption(item["filename"])]
    return {
        "name": dataset["name"],
        "status": dataset["status"],
        "verifying": bool(dataset.get("verify_wanted") or dataset.get("making")),
        "faulty": sum(item["status"] == DISABLED for item in pictures),
        "pictures": [item for item in pictures if item["status"] == ENABLED],
    }
