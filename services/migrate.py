"""``python -m services.migrate``: bring every service's database up to this version.

Services do the same at their own start; done before, none of them waits for it. Needs MONGODB_URL alone.
"""

import logging
import sys
import time
from importlib import import_module

from pymongo.errors import ConnectionFailure

from services.common.indexes import IndexNotPossible
from services.common.leases import StillHeld
from services.common.logs import set_up_logs
from services.common.mongo import open_database, ping
from services.common.settings import MongoSettings, SettingsError, read_settings

SERVICES = ("users", "checkpoints", "endpoints", "inference", "datasets", "training")
WAIT_SECONDS = 90.0

log = logging.getLogger(__name__)


def main() -> int:
    """Returns the exit code: 0 when every database is as this version wants it."""
    set_up_logs("migrate")
    try:
        settings = read_settings(MongoSettings)
        for service in SERVICES:
            _prepare(settings, service)
    except (SettingsError, IndexNotPossible, StillHeld) as reason:
        sys.stderr.write(f"{reason}\n")
        return 1
    except ConnectionFailure as error:
        sys.stderr.write(f"MongoDB does not answer: set MONGODB_URL to a replica set ({error})\n"[:600])
        return 1
    return 0


def _prepare(settings: MongoSettings, service: str) -> None:
    database = open_database(settings, service)
    give_up_at = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            ping(database)
            break
        except ConnectionFailure:  # it is still starting, or elects a primary
            if time.monotonic() > give_up_at:
                raise
            time.sleep(0.5)
    import_module(f"services.{service}.migrations").prepare(database)
    log.info("the database is ready", extra={"database": database.name})


if __name__ == "__main__":
    sys.exit(main())
