"""A lease in MongoDB on something that one process at a time may do; it ends with its holder."""

import contextlib
import secrets
import threading
import time
from collections.abc import Iterator
from datetime import timedelta

from pymongo.collection import Collection
from pymongo.errors import DuplicateKeyError, PyMongoError

from services.common.mongo import Documents
from services.common.times import now

LEASE_SECONDS = 30.0
POLL_SECONDS = 0.2


class StillHeld(Exception):
    """Another process has held the lease for longer than was to be waited."""


@contextlib.contextmanager
def held(
    database: Documents, name: str, *, seconds: float = LEASE_SECONDS, wait_seconds: float = 600.0
) -> Iterator[None]:
    """Hold the lease `name` for the block, renewed from a thread; waits for whoever holds it now.

    Raises StillHeld. A holder that MongoDB does not hear of for `seconds` may lose it: what is done under the
    lease can be done twice without harm.
    """
    leases: Collection[dict[str, object]] = database["leases"]
    holder, give_up_at = secrets.token_hex(8), time.monotonic() + wait_seconds
    while not _take(leases, name, holder, seconds):
        if time.monotonic() > give_up_at:
            raise StillHeld(f'another process has held "{name}" for {wait_seconds:g} s')
        time.sleep(POLL_SECONDS)
    done = threading.Event()
    thread = threading.Thread(target=_renew, args=(leases, name, holder, seconds, done), daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        leases.delete_one({"_id": name, "holder": holder})


def _take(leases: "Collection[dict[str, object]]", name: str, holder: str, seconds: float) -> bool:
    current = now()
    free_or_own = {"_id": name, "$or": [{"expires_at": {"$lt": current}}, {"holder": holder}]}
    kept = {"$set": {"holder": holder, "expires_at": current + timedelta(seconds=seconds)}}
    try:
        leases.update_one(free_or_own, kept, upsert=True)
    except DuplicateKeyError:
        return False  # somebody else holds it
    return True


def _renew(
    leases: "Collection[dict[str, object]]", name: str, holder: str, seconds: float, done: threading.Event
) -> None:
    while not done.wait(seconds / 3):
        with contextlib.suppress(PyMongoError):  # the next try comes before the lease ends
            leases.update_one(
                {"_id": name, "holder": holder}, {"$set": {"expires_at": now() + timedelta(seconds=seconds)}}
            )
