"""Indexes that an earlier version has made otherwise."""

import threading
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.database import Database

from services.common.indexes import IndexNotPossible, ensure_index
from stack.infrastructure import Infrastructure


@pytest.fixture()
def database(parts: Infrastructure) -> Iterator[Database[Any]]:
    with MongoClient(parts.mongodb_url, tz_aware=True) as client:
        name = f"test_{uuid.uuid4().hex[:8]}"
        yield client[name]
        client.drop_database(name)


def indexes(database: Database[Any]) -> dict[str, Any]:
    found: dict[str, Any] = database["things"].index_information()
    del found["_id_"]
    return found


def test_an_index_that_is_there_stays(database: Database[Any]) -> None:
    for _ in range(2):
        ensure_index(database["things"], [("a", 1), ("b", -1)], name="line")
    assert indexes(database)["line"]["key"] == [("a", 1), ("b", -1)]


@pytest.mark.parametrize(
    "before",
    [
        {"keys": [("a", 1)], "name": "line"},
        {"keys": [("a", 1), ("b", -1)], "name": "line", "sparse": True},
        {"keys": [("a", 1), ("b", -1)], "name": "line", "partialFilterExpression": {"a": 1}},
        {"keys": [("a", 1), ("b", -1)]},
    ],
    ids=["other fields", "other options", "another filter", "another name"],
)
def test_an_index_that_was_defined_otherwise_is_replaced(
    database: Database[Any], before: dict[str, Any]
) -> None:
    keys = before.pop("keys")
    database["things"].create_index(keys, **before)
    database["things"].insert_one({"a": 1, "b": 1})
    ensure_index(database["things"], [("a", 1), ("b", -1)], name="line")
    assert list(indexes(database)) == ["line"]
    line = indexes(database)["line"]
    assert line["key"] == [("a", 1), ("b", -1)]
    assert not {"sparse", "unique", "partialFilterExpression"} & set(line)


def test_another_time_to_live_is_taken_up(database: Database[Any]) -> None:
    database["things"].create_index("at", expireAfterSeconds=60)
    ensure_index(database["things"], "at", expireAfterSeconds=3600)
    assert indexes(database)["at_1"]["expireAfterSeconds"] == 3600


def test_two_indexes_of_the_same_fields_with_different_filters_live_together(database: Database[Any]) -> None:
    for _ in range(2):
        ensure_index(database["things"], "a", name="few", partialFilterExpression={"b": 1})
        ensure_index(database["things"], "a", name="all")
    assert sorted(indexes(database)) == ["all", "few"]


def test_many_processes_that_start_at_once_replace_it_once(database: Database[Any]) -> None:
    database["things"].insert_many([{"a": number, "b": number} for number in range(2000)])
    database["things"].create_index([("a", 1)], name="line")
    failures: list[BaseException] = []

    def start() -> None:
        try:
            ensure_index(database["things"], [("b", 1)], name="line", unique=True)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert indexes(database)["line"]["key"] == [("b", 1)]


def test_documents_that_contradict_a_unique_index_are_named(database: Database[Any]) -> None:
    database["things"].insert_many([{"name": "twin"}, {"name": "twin"}])
    with pytest.raises(IndexNotPossible, match=r"differ in name, but several have .*twin"):
        ensure_index(database["things"], "name", unique=True)
