"""Indexes as the code wants them, whatever an earlier version has made."""

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from pymongo import IndexModel
from pymongo.collection import Collection
from pymongo.errors import DuplicateKeyError, OperationFailure

from services.common.leases import held

log = logging.getLogger(__name__)

# MongoDB's IndexOptionsConflict and IndexKeySpecsConflict: there is one of this name, or of these keys.
CONFLICTS = {85, 86}
DEFINING = ("key", "unique", "sparse", "partialFilterExpression", "collation", "expireAfterSeconds")

Keys = str | list[Any]


class IndexNotPossible(Exception):
    """Documents contradict a unique index; the text says which and what to do."""


def ensure_index(collection: "Collection[Any]", keys: Keys, **options: Any) -> None:
    """Make an index, or replace one of its name or keys that is defined otherwise.

    Any number of processes may do so at once: one replaces, the others wait and find it done. Raises
    IndexNotPossible.
    """
    wanted = IndexModel(keys, **options)
    try:
        collection.create_indexes([wanted])
    except DuplicateKeyError as error:
        raise _impossible(collection, wanted, error) from None
    except OperationFailure as error:
        if error.code not in CONFLICTS:
            raise
        with held(collection.database, f"indexes of {collection.name}"):
            _replace(collection, wanted)


def ensure_indexes(collection: "Collection[Any]", wanted: Iterable[IndexModel]) -> None:
    """The same for several."""
    for index in wanted:
        document = dict(index.document)
        ensure_index(collection, list(document.pop("key").items()), **document)


def _replace(collection: "Collection[Any]", wanted: IndexModel) -> None:
    name = wanted.document["name"]
    for found in list(collection.list_indexes()):
        if found["name"] == name and _defined(found) == _defined(wanted.document):
            return  # whoever held the lease before has made it
        if found["name"] == name or _same_place(found, wanted.document):
            log.info("an index is replaced", extra={"collection": collection.name, "index": found["name"]})
            collection.drop_index(found["name"])
    try:
        collection.create_indexes([wanted])
    except DuplicateKeyError as error:
        raise _impossible(collection, wanted, error) from None


def _defined(index: Mapping[str, Any]) -> dict[str, Any]:
    """What makes an index what it is; absent and false are the same, a time of 0 s is one."""
    found = {name: index[name] for name in DEFINING if name in index and index[name] is not False}
    return found | {"key": list(index["key"].items())}


def _same_place(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether MongoDB takes the two for one index under two names."""
    telling = ("key", "partialFilterExpression", "collation")
    ours, theirs = _defined(wanted), _defined(found)
    return found["name"] != "_id_" and all(ours.get(name) == theirs.get(name) for name in telling)


def _impossible(
    collection: "Collection[Any]", wanted: IndexModel, error: DuplicateKeyError
) -> IndexNotPossible:
    fields = ", ".join(wanted.document["key"])
    shared = (error.details or {}).get("keyValue")
    return IndexNotPossible(
        f"the index {wanted.document['name']} of {collection.full_name} needs documents that differ in "
        f"{fields}, but several have {shared}: change or remove all of them but one, then start again"
    )
