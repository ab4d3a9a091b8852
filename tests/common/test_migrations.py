"""Changes to documents: once each, by one process, however many start and whatever dies."""

import subprocess
import sys
import threading
import time
from typing import Any

import pytest
from pymongo.database import Database

from services.common.leases import StillHeld, held
from services.common.migrations import Step, migrate
from tests.common.test_indexes import database

__all__ = ["database"]


def count(database: Database[Any]) -> None:
    database["things"].update_one({"_id": "runs"}, {"$inc": {"count": 1}}, upsert=True)


def test_a_step_is_run_once(database: Database[Any]) -> None:
    steps = [Step("count", count)]
    assert migrate(database, steps) == ["count"]
    assert migrate(database, steps) == []
    assert database["things"].find_one({"_id": "runs"})["count"] == 1


def test_of_many_processes_that_start_at_once_one_runs_it(database: Database[Any]) -> None:
    def slowly(changed: Database[Any]) -> None:
        time.sleep(0.5)
        count(changed)

    threads = [threading.Thread(target=migrate, args=(database, [Step("count", slowly)])) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert database["things"].find_one({"_id": "runs"})["count"] == 1


def test_a_step_that_was_cut_off_goes_on_from_there(database: Database[Any]) -> None:
    database["things"].insert_many([{"_id": number} for number in range(10)])

    def change(changed: Database[Any], most: int) -> None:
        for done, found in enumerate(changed["things"].find({"new": {"$exists": False}})):
            if done == most:
                raise OSError("killed")
            changed["things"].update_one({"_id": found["_id"]}, {"$set": {"new": 1}, "$inc": {"times": 1}})

    with pytest.raises(OSError, match="killed"):
        migrate(database, [Step("change", lambda changed: change(changed, 4))])
    assert migrate(database, [Step("change", lambda changed: change(changed, 100))]) == ["change"]
    assert {found["times"] for found in database["things"].find()} == {1}


def test_steps_added_later_are_run_alone(database: Database[Any]) -> None:
    migrate(database, [Step("first", count)])
    assert migrate(database, [Step("first", count), Step("second", count)]) == ["second"]


HOLDER = """
import sys, time
from pymongo import MongoClient
from services.common.leases import held
with held(MongoClient(sys.argv[1], tz_aware=True)[sys.argv[2]], "migrations", seconds=1.5):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_lease_lasts_as_long_as_its_holder_and_ends_with_it(database: Database[Any], parts: Any) -> None:
    command = [sys.executable, "-c", HOLDER, parts.mongodb_url, database.name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(StillHeld), held(database, "migrations", wait_seconds=3):
            pass
        holder.kill()
        holder.wait()
        assert migrate(database, [Step("count", count)]) == ["count"]
