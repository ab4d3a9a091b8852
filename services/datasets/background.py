"""Exclusive work on one data set: verification, and making a data set of another one's pictures."""

import logging
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from services.datasets.creation import new_item
from services.datasets.names import is_caption, key_of, stem
from services.datasets.pictures import Limits, NotAPicture, as_png, cropped, decode, examine, fitted
from services.datasets.repository import Dataset, Item, Repository
from services.datasets.states import DISABLED, ENABLED, INITIALED
from services.datasets.storage import DatasetStorage

log = logging.getLogger(__name__)

LARGEST_CAPTION = 16_384  # bytes
CROP, FIT = MODES = ("crop", "fit")


class Lost(Exception):
    """The data set was deleted during the work, or somebody else works on it."""


class Background:
    """What Celery does with a data set; every step may be repeated after any death."""

    def __init__(
        self, repository: Repository, storage: DatasetStorage, limits: Limits, lease_seconds: float
    ) -> None:
        self._repository = repository
        self._storage = storage
        self._limits = limits
        self._seconds = lease_seconds

    def run(self, dataset_id: str) -> None:
        """Do what the data set waits for, unless somebody does."""
        token = uuid.uuid4().hex
        dataset = self._repository.take_lease(dataset_id, token, self._seconds)
        if dataset is None:
            return
        with self._held(dataset, token):
            if dataset.get("making"):
                self._make(dataset, token)
            current = self._repository.get(dataset_id)
            if current and current.get("verify_wanted"):
                self._verify(current, token)

    def purge(self, dataset: Dataset) -> None:
        """Remove the objects and records of a deleted data set."""
        self._storage.purge(dataset["name"])
        self._repository.remove(dataset)

    @contextmanager
    def _held(self, dataset: Dataset, token: str) -> Iterator[None]:
        try:
            yield
        except Lost:
            log.info("data set work dropped", extra={"dataset_id": dataset["_id"]})
        finally:
            self._repository.release(dataset["_id"], token)

    def _still_held(self, dataset: Dataset, token: str, changes: dict[str, Any] | None = None) -> None:
        if not self._repository.go_on(dataset["_id"], token, self._seconds, changes):
            raise Lost

    # verification

    def _verify(self, dataset: Dataset, token: str) -> None:
        wanted, stored = dataset["verify_wanted"], self._storage.stored(dataset["name"])
        items = self._repository.items(dataset["_id"])
        pictures = {stem(item["filename"]): item for item in items if not is_caption(item["filename"])}
        first: dict[str, str] = {}  # sha256 -> the first picture's name
        for item in items:
            self._still_held(dataset, token)
            if is_caption(item["filename"]):
                found = self._read_caption(item, stored, pictures.get(stem(item["filename"])))
            else:
                found = self._examine(item, stored, first)
            self._repository.note_item(item["_id"], found)
        self._repository.verified(dataset["_id"], token, wanted)
        log.info("data set verified", extra={"dataset_id": dataset["_id"], "files": len(items)})

    def _examine(
        self, item: Item, stored: dict[str, tuple[str, int]], first: dict[str, str]
    ) -> dict[str, Any]:
        if item["key"] not in stored:
            return _unusable("the file was not uploaded", status=INITIALED)
        etag, size = stored[item["key"]]
        found = {name: item.get(name) for name in ("etag", "sha256", "width", "height", "format", "fault")}
        if found["etag"] != etag:  # else it was examined before
            found = {"etag": etag, "size": size, "fault": None, "sha256": None}
            try:
                content = self._storage.read(item["key"], self._limits.most_bytes + 1) or b""
                found |= vars(examine(content, self._limits))
            except NotAPicture as reason:
                found["fault"] = str(reason)
        problems = [found["fault"]] if found["fault"] else []
        if found["sha256"] and first.setdefault(found["sha256"], item["filename"]) != item["filename"]:
            problems.append(f"it is the same picture as {first[found['sha256']]}")
        return found | {"problems": problems, "status": DISABLED if problems else ENABLED}

    def _read_caption(
        self, item: Item, stored: dict[str, tuple[str, int]], picture: Item | None
    ) -> dict[str, Any]:
        if item["key"] not in stored:
            return _unusable("the file was not uploaded", status=INITIALED)
        etag, size = stored[item["key"]]
        if size > LARGEST_CAPTION:
            return _unusable(f"a caption has at most {LARGEST_CAPTION} bytes, this one has {size}")
        try:
            text = (self._storage.read(item["key"], LARGEST_CAPTION) or b"").decode("utf-8-sig").strip()
        except UnicodeDecodeError:
            return _unusable("the caption is not UTF-8 text")
        if "\0" in text:
            return _unusable("the caption is not UTF-8 text")
        if picture is None:
            return _unusable("there is no picture of this name for the caption")
        self._repository.note_caption(picture["_id"], text, etag)
        return {"etag": etag, "size": size, "caption": text, "problems": [], "status": ENABLED}

    # a data set of cropped pictures

    def _make(self, dataset: Dataset, token: str) -> None:
        making = dataset["making"]
        source = self._repository.get(making["source"])
        if source is None:
            self._repository.making_failed(
                dataset["_id"], token, "the data set that it is made of was deleted"
            )
            return
        chosen = [
            item
            for item in self._repository.items(source["_id"])
            if item["status"] == ENABLED and not is_caption(item["filename"])
        ]
        there = {item["filename"] for item in self._repository.items(dataset["_id"])}
        for done, item in enumerate(chosen):
            self._still_held(dataset, token, {"making.done": done, "making.total": len(chosen)})
            if (filename := f"{stem(item['filename'])}.png") not in there:
                self._make_item(dataset, item, filename)
        self._repository.made(dataset["_id"], token)

    def _make_item(self, dataset: Dataset, item: Item, filename: str) -> None:
        making = dataset["making"]
        content = self._storage.read(item["key"], self._limits.most_bytes + 1) or b""
        try:
            picture = decode(content, self._limits)
        except NotAPicture:
            return  # it was replaced since it was verified; the source's next verification says so
        change = cropped if making["mode"] == CROP else fitted
        made = as_png(change(picture, making["width"], making["height"]))
        key = key_of(dataset["name"], dataset["prefix"], filename)
        self._storage.write(key, made, "image/png")
        entry = {"filename": filename, "name": item["name"], "caption": item.get("caption")}
        self._repository.put_items([new_item(dataset, entry)])


def _unusable(problem: str, status: str = DISABLED) -> dict[str, Any]:
    return {"status": status, "problems": [problem], "etag": None}
