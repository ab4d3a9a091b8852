"""Creates data sets and adds files to them."""

import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from services.common.errors import BadRequest
from services.common.identity import Caller
from services.common.service_client import ServiceClient
from services.common.times import now
from services.datasets.errors import ActsForAnother, NameTaken, TooManyItems, UnknownUser
from services.datasets.names import check_dataset_name, check_path, is_caption, key_of
from services.datasets.repository import Dataset, Item, Repository
from services.datasets.states import INITIALED

MOST_ITEMS = 10_000
LARGEST_PARAMS = 65_536  # bytes of JSON
NOT_A_PARAM = frozenset({"datasetName", "s3", "status", "timestamp", "creator"})


class Creation:
    """Makes the documents of data sets and files."""

    def __init__(self, repository: Repository, users: ServiceClient) -> None:
        self._repository = repository
        self._users = users

    def create(self, caller: Caller, body: Mapping[str, Any], dataset_id: str) -> Dataset:
        """Keep a new data set with its files. Raises NameTaken, DuplicateKeyError for a repeat."""
        dataset = self.document(caller, body, dataset_id)
        # The files come first: a repeat after a death finds a data set with all of them, or none.
        items = new_items(dataset, body["content"])
        self._repository.put_items(items)
        try:
            return self._repository.add(dataset)
        except NameTaken:
            self._repository.drop_items(dataset["_id"])
            raise

    def document(self, caller: Caller, body: Mapping[str, Any], dataset_id: str) -> Dataset:
        """A data set that is not kept yet."""
        check_dataset_name(body["dataset_name"])
        prefix = (body.get("prefix") or "").strip("/")
        if prefix:
            check_path(prefix, "prefix")
        owner, roles = self._owner(caller, body)
        allowed, moment = body.get("allowed_roles_or_users"), now()
        return {
            "_id": dataset_id,
            "name": body["dataset_name"],
            "prefix": prefix,
            "status": INITIALED,
            "creator": owner,
            "allowed": roles if allowed is None else allowed,
            "params": own_params(body.get("params") or {}),
            "created": moment,
            "verify_wanted": None,
            "making": None,
        }

    def add(self, dataset: Dataset, content: Sequence[Mapping[str, Any]]) -> list[Item]:
        """Add files to a data set. Raises ItemsExist, TooManyItems."""
        items = new_items(dataset, content)
        if self._repository.count_items(dataset["_id"]) + len(items) > MOST_ITEMS:
            raise TooManyItems(MOST_ITEMS)
        self._repository.add_items(items)
        return items

    def _owner(self, caller: Caller, body: Mapping[str, Any]) -> tuple[str, list[str]]:
        creator = body.get("creator") or caller.name
        if creator == caller.name:
            return caller.name, list(caller.roles)
        if not caller.may("user:all"):
            raise ActsForAnother(creator)
        found = self._users.call("/internal/names", {"usernames": [creator], "roles": []})
        if creator in found["missing_usernames"]:
            raise UnknownUser(creator)
        return creator, list(found["roles_of"][creator])


def own_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """What the client may say in params; the rest is this service's. Raises BadRequest."""
    kept = {name: value for name, value in params.items() if name not in NOT_A_PARAM}
    if (size := len(json.dumps(kept))) > LARGEST_PARAMS:
        raise BadRequest(f"params is too large ({size} bytes, maximum {LARGEST_PARAMS})")
    return kept


def new_items(dataset: Dataset, content: Sequence[Mapping[str, Any]]) -> list[Item]:
    """Files that are not kept yet. Raises UnusableName, BadRequest."""
    names = [entry["filename"] for entry in content]
    for name in names:
        check_path(name, "filename")
    if twice := sorted({name for name in names if names.count(name) > 1})[:10]:
        raise BadRequest(f"files are named twice: {', '.join(twice)}")
    return [new_item(dataset, entry) for entry in content]


def new_item(dataset: Dataset, entry: Mapping[str, Any]) -> Item:
    """A file that is not kept yet."""
    params = own_params(entry.get("params") or {})
    item = {
        "_id": str(uuid.uuid4()),
        "dataset": dataset["_id"],
        "filename": entry["filename"],
        "key": key_of(dataset["name"], dataset["prefix"], entry["filename"]),
        "name": entry.get("name") or entry["filename"],
        "type": entry.get("type") or ("caption" if is_caption(entry["filename"]) else "image"),
        "params": params,
        "status": INITIALED,
        "problems": [],
        "created": now(),
    }
    caption = entry.get("caption") or params.get("caption")
    if isinstance(caption, str) and caption:
        item |= {"caption": caption, "caption_source": "api"}
    return item
