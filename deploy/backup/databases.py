"""The services' databases as files of BSON: read as of one moment, and written back with their indexes."""

import gzip
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any, cast

import bson
from bson import json_util
from bson.raw_bson import RawBSONDocument
from pymongo import MongoClient
from pymongo.errors import OperationFailure

from deploy.backup.failures import BackupFailed
from services.common.settings import MongoSettings

SERVICES = ("users", "checkpoints", "endpoints", "inference", "datasets", "training")
BATCH = 1000
TOO_OLD = 239  # SnapshotTooOld, from MongoDB's error codes

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Collection:
    """A collection that was dumped; `database` is the service's name, without the deployment's prefix."""

    database: str
    name: str
    documents: int

    @property
    def file_name(self) -> str:
        """Its documents; its indexes lie beside them."""
        return f"{self.database}.{self.name}.bson.gz"


def dump(settings: MongoSettings, folder: Path) -> list[Collection]:
    """Write every collection as it was when the first was read. Raises BackupFailed."""
    found = []
    with _connect(settings) as client, client.start_session(snapshot=True) as session:
        for service in SERVICES:
            database = client[f"{settings.database_prefix}_{service}"]
            for described in database.list_collections():
                name = described["name"]
                if described["type"] != "collection" or name.startswith("system."):
                    continue
                facts = {"options": described["options"], "indexes": list(database[name].list_indexes())}
                try:
                    cursor = database[name].find_raw_batches({}, session=session)
                    collection = Collection(service, name, 0)
                    count = _write(folder / collection.file_name, cursor)
                except OperationFailure as failure:
                    raise _explained(failure) from None
                (folder / f"{service}.{name}.json").write_text(json_util.dumps(facts))
                found.append(Collection(service, name, count))
                log.info("%s.%s: %d documents", service, name, count)
    return found


def _explained(failure: OperationFailure) -> BackupFailed:
    if failure.code == TOO_OLD:
        return BackupFailed(
            "MongoDB has forgotten the state of the backup's begin: raise minSnapshotHistoryWindowInSeconds"
        )
    return BackupFailed(f"MongoDB refused to be read: {failure.details or failure}")


def _write(path: Path, batches: Any) -> int:
    count = 0
    with gzip.open(path, "wb", compresslevel=3) as file:
        for batch in batches:
            file.write(batch)
            count += sum(1 for _ in bson.decode_iter(batch, bson.CodecOptions(RawBSONDocument)))
    return count


def make_room(settings: MongoSettings, replace: bool) -> None:
    """See that nothing is overwritten: with `replace` by removing it. Raises BackupFailed otherwise."""
    with _connect(settings) as client:
        for service in SERVICES:
            database = client[f"{settings.database_prefix}_{service}"]
            for name in database.list_collection_names():
                if not replace and database[name].find_one() is not None:
                    raise BackupFailed(
                        f"{database.name}.{name} is not empty: restore into an empty sdfleet, or with "
                        "--replace, which removes what is there"
                    )
                database.drop_collection(name)


def load(settings: MongoSettings, folder: Path, collections: list[Collection]) -> None:
    """Write every collection. Raises BackupFailed when documents are missing."""
    with _connect(settings) as client:
        for collection in collections:
            database = client[f"{settings.database_prefix}_{collection.database}"]
            facts = json_util.loads((folder / f"{collection.database}.{collection.name}.json").read_text())
            database.create_collection(collection.name, **facts["options"])
            count = 0
            for batch in _read(folder / collection.file_name):
                database[collection.name].insert_many(batch, ordered=False)
                count += len(batch)
            if count != collection.documents:
                raise BackupFailed(
                    f"{collection.file_name} has {count} of {collection.documents} documents: it is damaged"
                )
            indexes = [
                {name: value for name, value in index.items() if name not in {"v", "ns"}}
                for index in facts["indexes"]
                if index["name"] != "_id_"
            ]
            if indexes:
                database.command("createIndexes", collection.name, indexes=indexes)
            log.info("%s.%s: %d documents", collection.database, collection.name, count)


def _read(path: Path) -> Iterator[list[RawBSONDocument]]:
    with gzip.open(path, "rb") as file:
        documents = bson.decode_file_iter(cast(IO[bytes], file), bson.CodecOptions(RawBSONDocument))
        while batch := list(islice(documents, BATCH)):
            yield batch


def _connect(settings: MongoSettings) -> MongoClient[Any]:
    return MongoClient(settings.url, tz_aware=True, serverSelectionTimeoutMS=30000, w="majority")
