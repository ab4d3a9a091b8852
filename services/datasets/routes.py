"""The public routes of data sets."""

from typing import Any

from flask import Response

from services.common.envelope import answer
from services.common.errors import BadRequest
from services.common.idempotency import create_once
from services.common.identity import current_caller, requires
from services.common.paging import next_key
from services.common.web import ServiceBlueprint
from services.datasets.creation import own_params
from services.datasets.errors import (
    DatasetNotFound,
    ItemsNotFound,
    NothingToCrop,
    NotTheCreator,
    Unfinished,
)
from services.datasets.names import is_caption
from services.datasets.presentation import listed, shown
from services.datasets.repository import Dataset, Item, Viewer
from services.datasets.schemas import (
    Captions,
    ChangedDataset,
    ChangedStatus,
    CreatedDataset,
    Crop,
    DatasetNames,
    DatasetPage,
    DatasetQuery,
    FileNames,
    NamedChangedDataset,
    NewDataset,
    NewItems,
    OneDataset,
)
from services.datasets.states import ENABLED
from services.datasets.wiring import current_parts

blp = ServiceBlueprint("datasets", __name__, description="Data sets")


def _visible(name: str) -> Dataset:
    dataset = current_parts().repository.find(name, Viewer.of(current_caller()))
    if dataset is None:
        raise DatasetNotFound(name)
    return dataset


def _own(name: str) -> Dataset:
    dataset = _visible(name)
    if not Viewer.of(current_caller()).owns(dataset):
        raise NotTheCreator(name)
    if dataset.get("making"):
        raise Unfinished(name)
    return dataset


def _shown(dataset: Dataset) -> dict[str, Any]:
    parts = current_parts()
    return shown(dataset, parts.repository.items(dataset["_id"]), parts.storage)


def _change(name: str, body: dict[str, Any]) -> dict[str, Any]:
    parts, dataset = current_parts(), _own(name)
    changes: dict[str, Any] = {"status": body["status"]} if "status" in body else {}
    if "params" in body:
        changes["params"] = own_params(dataset["params"] | body["params"])
    if body.get("allowed_roles_or_users") is not None:
        changes["allowed"] = body["allowed_roles_or_users"]
    if not changes:
        raise BadRequest("nothing to change: give one of status, params, allowed_roles_or_users")
    verify = changes.get("status") == ENABLED
    changed = parts.repository.change(dataset["_id"], changes, verify)
    if changed is None:
        raise DatasetNotFound(name)
    if verify:
        parts.ask(dataset["_id"])
    return {"datasetName": changed["name"], "status": changed["status"]}


def _with_urls(dataset: Dataset, items: list[Item]) -> dict[str, Any]:
    storage = current_parts().storage
    return {
        "datasetName": dataset["name"],
        "s3PresignUrl": {item["filename"]: storage.upload_url(item["key"]) for item in items},
    }


@blp.route("/datasets", methods=["POST"])
@blp.arguments(NewDataset)
@blp.answers(201, CreatedDataset, "Created")
@requires("train:create")
def create_dataset(body: dict[str, Any]) -> dict[str, Any]:
    """Begin a data set: a URL for each file."""
    parts = current_parts()
    dataset = create_once(
        lambda made_id: parts.creation.create(current_caller(), body, made_id),
        parts.repository.get,
        "created",
    )
    return _with_urls(dataset, parts.repository.items(dataset["_id"]))


@blp.route("/datasets", methods=["GET"])
@blp.arguments(DatasetQuery, location="query")
@blp.answers(200, DatasetPage)
@requires("train:list")
def list_datasets(query: dict[str, Any]) -> dict[str, Any]:
    """The data sets that the caller may see, newest first."""
    parts, viewer = current_parts(), Viewer.of(current_caller())
    found = parts.repository.page(
        viewer, query["dataset_status"], query["limit"], query["last_evaluated_key"]
    )
    page = found[: query["limit"]]
    counts = parts.repository.counts(dataset["_id"] for dataset in page)
    return {
        "datasets": [listed(one, counts.get(one["_id"], {}), parts.storage) for one in page],
        "last_evaluated_key": next_key(found, query["limit"], "created"),
    }


@blp.route("/datasets", methods=["DELETE"])
@blp.arguments(DatasetNames)
@blp.answers(204)
@requires("train:delete")
def delete_datasets(body: dict[str, Any]) -> None:
    """Delete one's own data sets with their files; absent ones are ignored."""
    parts = current_parts()
    for dataset in parts.repository.mark_deleted(body["dataset_name_list"], Viewer.of(current_caller())):
        parts.background.purge(dataset)


@blp.route("/datasets/<name>", methods=["GET"])
@blp.answers(200, OneDataset)
@requires("train:list")
def get_dataset(name: str) -> dict[str, Any]:
    """One data set: its files with previews, captions and problems."""
    return _shown(_visible(name))


@blp.route("/datasets/<name>/data", methods=["GET"])
@blp.answers(200, OneDataset)
@requires("train:list")
def get_data(name: str) -> dict[str, Any]:
    """The same, at the older path."""
    return _shown(_visible(name))


@blp.route("/datasets/<name>", methods=["PUT"])
@blp.arguments(ChangedDataset)
@blp.answers(200, ChangedStatus)
@requires("train:update")
def update_dataset(body: dict[str, Any], name: str) -> dict[str, Any]:
    """Enable (the files are verified in the background), disable, or edit."""
    return _change(name, body)


@blp.route("/datasets", methods=["PUT"])
@blp.arguments(NamedChangedDataset)
@blp.answers(200, ChangedStatus)
@requires("train:update")
def update_named_dataset(body: dict[str, Any]) -> dict[str, Any]:
    """The same, with the name in the body, as older clients send it."""
    return _change(body["dataset_name"], body)


@blp.route("/datasets/<name>/items", methods=["POST"])
@blp.arguments(NewItems)
@blp.answers(201, CreatedDataset, "Created")
@requires("train:update")
def add_items(body: dict[str, Any], name: str) -> dict[str, Any]:
    """Add files: a URL for each. Enable the data set again when they are uploaded."""
    dataset = _own(name)
    return _with_urls(dataset, current_parts().creation.add(dataset, body["content"]))


@blp.route("/datasets/<name>/items", methods=["PUT"])
@blp.arguments(Captions)
@blp.answers(200, OneDataset)
@requires("train:update")
def set_captions(body: dict[str, Any], name: str) -> dict[str, Any]:
    """Set captions of pictures."""
    parts, dataset = current_parts(), _own(name)
    pictures = {
        item["filename"]
        for item in parts.repository.items(dataset["_id"])
        if not is_caption(item["filename"])
    }
    if unknown := sorted(set(body["captions"]) - pictures):
        raise ItemsNotFound(unknown)
    if body["captions"]:
        parts.repository.set_captions(dataset["_id"], body["captions"])
    return _shown(dataset)


@blp.route("/datasets/<name>/items", methods=["DELETE"])
@blp.arguments(FileNames)
@blp.answers(204)
@requires("train:update")
def remove_items(body: dict[str, Any], name: str) -> None:
    """Remove files; absent ones are ignored."""
    parts, dataset = current_parts(), _own(name)
    removed = parts.repository.remove_items(dataset["_id"], body["filename_list"])
    parts.storage.delete([item["key"] for item in removed])
    if dataset["status"] == ENABLED and parts.repository.change(dataset["_id"], {}, verify=True):
        parts.ask(dataset["_id"])  # a picture that was a duplicate may be the only one now


@blp.route("/datasets/<name>/crop", methods=["POST"])
@blp.arguments(Crop)
@blp.answers(202, CreatedDataset)
@requires("train:create")
def crop_dataset(body: dict[str, Any], name: str) -> Response:
    """Make another data set of the verified pictures, at a training size, in the background."""
    parts, caller, source = current_parts(), current_caller(), _visible(name)
    items = parts.repository.items(source["_id"])
    if not any(item["status"] == ENABLED and not is_caption(item["filename"]) for item in items):
        raise NothingToCrop(name)
    wanted = body.get("dataset_name") or f"{name}-{body['width']}x{body['height']}"
    making = {"source": source["_id"], "mode": body["mode"], "done": 0, "total": len(items)}
    making |= {"width": body["width"], "height": body["height"]}

    def create(made_id: str) -> Dataset:
        new = {"dataset_name": wanted, "params": source["params"] | {"made_of": name}}
        return parts.repository.add(parts.creation.document(caller, new, made_id) | {"making": making})

    made = create_once(create, parts.repository.get, "created")
    parts.ask(made["_id"])
    return answer(202, "Dataset creation in progress, please check later", {"datasetName": made["name"]})
