"""The connection to a service's own MongoDB database."""

from typing import Any

from pymongo import MongoClient
from pymongo.database import Database

from services.common.settings import MongoSettings

Documents = Database[dict[str, Any]]


def open_database(settings: MongoSettings, service: str) -> Documents:
    """The service's database; connects with the first query, waits for a primary up to 5 s.

    Writes are acknowledged by a majority: what a client was told survives a fail-over.
    """
    client: MongoClient[dict[str, Any]] = MongoClient(
        settings.url,
        tz_aware=True,
        serverSelectionTimeoutMS=5000,
        w="majority",
        journal=True,
        appname=f"sdfleet-{service}",
    )
    return client[f"{settings.database_prefix}_{service}"]


def ping(database: Documents) -> None:
    """Raise when the primary does not answer."""
    database.command("ping")
