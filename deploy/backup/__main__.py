"""`python -m deploy.backup create|restore FOLDER`; MongoDB and S3 are those of the environment."""

import argparse
import json
import logging
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from deploy.backup import databases, objects
from deploy.backup.failures import BackupFailed
from deploy.backup.folder import Folder
from services.common.s3 import ObjectStore
from services.common.settings import MongoSettings, S3Settings, SettingsError, read_settings


@dataclass(frozen=True)
class Config:
    """Where everything is kept."""

    mongo: MongoSettings
    s3: S3Settings


def main(words: list[str] | None = None) -> int:
    """Run one command; its exit status. The last line of the output is one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m deploy.backup", description=__doc__)
    parser.add_argument("command", choices=("create", "restore"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--replace", action="store_true", help="restore: what is there now is removed")
    arguments = parser.parse_args(words)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("botocore").setLevel(logging.WARNING)
    os.umask(0o077)  # it holds password hashes and signing keys
    try:
        config = read_settings(Config)
        folder = Folder(arguments.folder)
        done = (
            create(config, folder)
            if arguments.command == "create"
            else restore(config, folder, arguments.replace)
        )
    except (BackupFailed, SettingsError) as failure:
        print(failure, file=sys.stderr)  # noqa: T201
        return 1
    print(json.dumps(done))  # noqa: T201
    return 0


def create(config: Config, folder: Folder) -> dict[str, int]:
    """Documents first, as of one moment, then objects: whatever a document names is there by then."""
    with folder.locked():
        dump = folder.new_dump()
        collections = databases.dump(config.mongo, dump)
        entries = objects.fetch(ObjectStore(config.s3), folder)
        folder.finish(dump, collections, entries)
    return _counts(collections, entries)


def restore(config: Config, folder: Folder, replace: bool) -> dict[str, int]:
    """Objects first, then documents: whatever a document names is there already."""
    with folder.locked():
        backup = folder.read()
        databases.make_room(config.mongo, replace)
        objects.store(ObjectStore(config.s3), folder, backup.objects)
        databases.load(config.mongo, backup.dump, backup.collections)
    return _counts(backup.collections, backup.objects)


def _counts(collections: list[databases.Collection], entries: list[objects.Entry]) -> dict[str, int]:
    return {
        "collections": len(collections),
        "documents": sum(collection.documents for collection in collections),
        "objects": len(entries),
        "bytes": sum(entry.size for entry in entries),
    }


if __name__ == "__main__":
    sys.exit(main())
