"""Every query and index of the collections `datasets` and `items`."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Self

from pymongo import DESCENDING, ReturnDocument, UpdateOne
from pymongo.errors import BulkWriteError, DuplicateKeyError

from services.common.identity import Caller
from services.common.indexes import ensure_index
from services.common.mongo import Documents
from services.common.paging import after
from services.common.times import now
from services.datasets.errors import ItemsExist, NameTaken
from services.datasets.states import DELETING, ENABLED, STATUSES

Dataset = dict[str, Any]
Item = dict[str, Any]
LIVE: dict[str, Any] = {"status": {"$in": list(STATUSES)}}
NEWEST_FIRST = [("created", DESCENDING), ("_id", DESCENDING)]


@dataclass(frozen=True)
class Viewer:
    """Somebody who looks at data sets."""

    username: str
    roles: tuple[str, ...] = ()
    see_all: bool = False

    @classmethod
    def of(cls, caller: Caller) -> Self:
        """The user behind a request."""
        return cls(caller.name, caller.roles, caller.may("train:all"))

    def owns(self, dataset: Dataset) -> bool:
        """Whether they may change it."""
        return self.see_all or dataset["creator"] == self.username

    def query(self) -> dict[str, Any]:
        """The query part for what they may see."""
        if self.see_all:
            return {}
        named = [self.username, *self.roles, "*"]
        return {"$or": [{"creator": self.username}, {"allowed": {"$in": named}}]}


class Repository:
    """The data sets and their files."""

    def __init__(self, database: Documents) -> None:
        self._datasets = database["datasets"]
        self._items = database["items"]

    def ensure_indexes(self) -> None:
        """Make the indexes that names and lists stand on."""
        ensure_index(self._datasets, "name", unique=True)
        ensure_index(self._datasets, NEWEST_FIRST)
        ensure_index(self._items, [("dataset", 1), ("filename", 1)], unique=True)

    # data sets

    def add(self, dataset: Dataset) -> Dataset:
        """Keep a new data set. Raises NameTaken, DuplicateKeyError when the id is taken."""
        try:
            self._datasets.insert_one(dataset)
        except DuplicateKeyError as error:
            if "name" in (error.details or {}).get("keyPattern", {}):
                raise NameTaken(dataset["name"]) from None
            raise
        return dataset

    def get(self, dataset_id: str) -> Dataset | None:
        """A live data set by its id, whoever asks."""
        return self._datasets.find_one({"_id": dataset_id, **LIVE})

    def find(self, name: str, viewer: Viewer) -> Dataset | None:
        """A live data set that the viewer may see."""
        return self._datasets.find_one({"$and": [{"name": name}, LIVE, viewer.query()]})

    def find_named(self, names: Iterable[str], viewer: Viewer) -> list[Dataset]:
        """Those of the names that the viewer may see."""
        return list(self._datasets.find({"$and": [{"name": {"$in": list(names)}}, LIVE, viewer.query()]}))

    def page(
        self, viewer: Viewer, statuses: Sequence[str], limit: int, last_key: str | None
    ) -> list[Dataset]:
        """Up to `limit` + 1 data sets that the viewer may see, newest first."""
        chosen = {"status": {"$in": list(statuses)}} if statuses else LIVE
        query = {"$and": [chosen, viewer.query(), after(last_key, "created")]}
        return list(self._datasets.find(query).sort(NEWEST_FIRST).limit(limit + 1))

    def change(self, dataset_id: str, changes: Mapping[str, Any], verify: bool = False) -> Dataset | None:
        """Set members of a live data set and, if so, ask for its verification; None when it is gone."""
        wanted = {"verify_wanted": now()} if verify else {}
        return self._datasets.find_one_and_update(
            {"_id": dataset_id, **LIVE},
            {"$set": dict(changes) | wanted},
            return_document=ReturnDocument.AFTER,
        )

    def mark_deleted(self, names: Iterable[str], viewer: Viewer) -> list[Dataset]:
        """Take the viewer's own data sets out of sight; those that were."""
        own = {} if viewer.see_all else {"creator": viewer.username}
        marked = []
        for name in dict.fromkeys(names):
            found = self._datasets.find_one_and_update(
                {"name": name, **LIVE, **own}, {"$set": {"status": DELETING}, "$unset": {"lease": ""}}
            )
            marked += [found] if found else []
        return marked

    def deleted(self) -> list[Dataset]:
        """Data sets whose objects may still be there."""
        return list(self._datasets.find({"status": DELETING}).limit(100))

    def remove(self, dataset: Dataset) -> None:
        """Forget a deleted data set; only now its name is free."""
        self._items.delete_many({"dataset": dataset["_id"]})
        self._datasets.delete_one({"_id": dataset["_id"], "status": DELETING})

    # files

    def items(self, dataset_id: str) -> list[Item]:
        """The files of a data set by name."""
        return list(self._items.find({"dataset": dataset_id}).sort("filename", 1))

    def counts(self, dataset_ids: Iterable[str]) -> dict[str, dict[str, int]]:
        """How many files of each status the data sets have."""
        stages: list[dict[str, Any]] = [
            {"$match": {"dataset": {"$in": list(dataset_ids)}}},
            {"$group": {"_id": {"dataset": "$dataset", "status": "$status"}, "count": {"$sum": 1}}},
        ]
        found: dict[str, dict[str, int]] = {}
        for group in self._items.aggregate(stages):
            found.setdefault(group["_id"]["dataset"], {})[group["_id"]["status"]] = group["count"]
        return found

    def count_items(self, dataset_id: str) -> int:
        """How many files a data set has."""
        return self._items.count_documents({"dataset": dataset_id})

    def add_items(self, items: list[Item]) -> None:
        """Keep new files, all or none. Raises ItemsExist."""
        try:
            self._items.insert_many(items, ordered=False)
        except BulkWriteError as error:
            taken = [failure["op"]["filename"] for failure in error.details["writeErrors"]]
            added = [item["_id"] for item in items if item["filename"] not in taken]
            self._items.delete_many({"_id": {"$in": added}})
            raise ItemsExist(taken) from None

    def put_items(self, items: Sequence[Item]) -> None:
        """Keep files; those that are there stay as they are."""
        if items:
            self._items.bulk_write(
                [
                    UpdateOne(
                        {"dataset": item["dataset"], "filename": item["filename"]},
                        {"$setOnInsert": item},
                        upsert=True,
                    )
                    for item in items
                ],
                ordered=False,
            )

    def drop_items(self, dataset_id: str) -> None:
        """Forget the files of a data set that could not be made."""
        self._items.delete_many({"dataset": dataset_id})

    def remove_items(self, dataset_id: str, filenames: Iterable[str]) -> list[Item]:
        """Forget these files; those that were there."""
        query = {"dataset": dataset_id, "filename": {"$in": list(filenames)}}
        found = list(self._items.find(query))
        self._items.delete_many({"_id": {"$in": [item["_id"] for item in found]}})
        return found

    def set_captions(self, dataset_id: str, captions: Mapping[str, str]) -> None:
        """Set the captions of pictures, by file name."""
        self._items.bulk_write(
            [
                UpdateOne(
                    {"dataset": dataset_id, "filename": filename},
                    {"$set": {"caption": caption, "caption_source": "api"}},
                )
                for filename, caption in captions.items()
            ]
        )

    def note_item(self, item_id: str, found: Mapping[str, Any]) -> None:
        """Keep what was found out about a file."""
        self._items.update_one({"_id": item_id}, {"$set": dict(found)})

    def note_caption(self, item_id: str, caption: str, etag: str) -> None:
        """Keep a caption that a caption file holds, unless this file's was taken before."""
        self._items.update_one(
            {"_id": item_id, "caption_etag": {"$ne": etag}},
            {"$set": {"caption": caption, "caption_source": "file", "caption_etag": etag}},
        )

    # background work, by one process at a time

    def waiting_work(self) -> list[str]:
        """Ids of data sets that want work and on which nobody works."""
        wanted = {"$or": [{"verify_wanted": {"$ne": None}}, {"making": {"$ne": None}}]}
        free = {"$or": [{"lease": None}, {"lease.until": {"$lt": now()}}]}
        return [one["_id"] for one in self._datasets.find({"$and": [LIVE, wanted, free]}, {"_id": True})]

    def take_lease(self, dataset_id: str, token: str, seconds: float) -> Dataset | None:
        """Begin exclusive work; None when somebody works on it or it is gone."""
        moment = now()
        free = {"$or": [{"lease": None}, {"lease.until": {"$lt": moment}}]}
        lease = {"token": token, "until": moment + timedelta(seconds=seconds)}
        return self._datasets.find_one_and_update(
            {"_id": dataset_id, **LIVE, **free},
            {"$set": {"lease": lease}},
            return_document=ReturnDocument.AFTER,
        )

    def go_on(
        self, dataset_id: str, token: str, seconds: float, changes: Mapping[str, Any] | None = None
    ) -> bool:
        """Renew the lease and note progress; False when it is lost or the data set deleted."""
        until = now() + timedelta(seconds=seconds)
        held = {"_id": dataset_id, **LIVE, "lease.token": token}
        done = self._datasets.update_one(held, {"$set": {"lease.until": until} | dict(changes or {})})
        return done.matched_count == 1

    def release(self, dataset_id: str, token: str) -> None:
        """End exclusive work."""
        self._datasets.update_one({"_id": dataset_id, "lease.token": token}, {"$unset": {"lease": ""}})

    def verified(self, dataset_id: str, token: str, wanted: datetime) -> None:
        """The verification that was wanted then is done; one that was wanted later is still to come."""
        self._datasets.update_one(
            {"_id": dataset_id, "lease.token": token, "verify_wanted": wanted},
            {"$set": {"verify_wanted": None, "verified_at": now()}},
        )

    def made(self, dataset_id: str, token: str) -> None:
        """A data set that was made from another one is complete."""
        self._datasets.update_one(
            {"_id": dataset_id, "lease.token": token, **LIVE},
            {"$set": {"making": None, "status": ENABLED, "verify_wanted": now()}},
        )

    def making_failed(self, dataset_id: str, token: str, reason: str) -> None:
        """A data set cannot be made from another one."""
        self._datasets.update_one(
            {"_id": dataset_id, "lease.token": token, **LIVE},
            {"$set": {"making": None, "error": reason}},
        )
