"""Every query and index of the endpoints service; each change of state is one atomic update."""

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pymongo import ASCENDING, DESCENDING
from pymongo.client_session import ClientSession
from pymongo.collection import Collection
from pymongo.errors import DuplicateKeyError

from services.common.indexes import ensure_index
from services.common.mongo import Documents
from services.common.paging import after
from services.common.times import now
from services.endpoints.errors import NameTaken, ResourceLimitExceeded, RoleHasEndpoint
from services.endpoints.states import LIVE, SERVING, SHOWN, Status

Endpoint = dict[str, Any]
NEWEST_FIRST = [("created_at", DESCENDING), ("_id", DESCENDING)]
# Jobs may be on their way to an endpoint when it ends, or run there: inference is told again after so long.
NEXT_NOTICE = timedelta(seconds=15)


@dataclass(frozen=True)
class Sight:
    """Whose endpoints a caller sees: everybody's, or their own and those of their roles."""

    username: str | None
    roles: Sequence[str]
    everything: bool

    def query(self) -> dict[str, Any]:
        """The part of a query that leaves out what the caller may not see."""
        shown: dict[str, Any] = {"status": {"$in": SHOWN}}
        if self.everything:
            return shown
        return shown | {"$or": [{"creator": self.username}, {"roles": {"$in": list(self.roles)}}]}


@dataclass(frozen=True)
class Limit:
    """How many instances of its type an endpoint may find, and which types there are."""

    instances: int | None  # None: the backend itself refuses what it does not have
    known_types: Iterable[str]
    counted: str = "wanted"  # what of an endpoint takes capacity: its instances now, or the most it may have


class Endpoints:
    """The endpoints and what is wanted of them."""

    def __init__(self, database: Documents) -> None:
        self._database = database
        self._endpoints: Collection[Endpoint] = database["endpoints"]
        self._controller: Collection[dict[str, Any]] = database["controller"]

    def ensure_indexes(self) -> None:
        """Make the indexes that keep names and roles unique; a taken role is told before a taken name."""
        ensure_index(
            self._endpoints,
            [("endpoint_type", ASCENDING), ("roles", ASCENDING)],
            unique=True,
            partialFilterExpression={"status": {"$in": SERVING}},
            name="one_of_a_type_per_role",
        )
        ensure_index(
            self._endpoints,
            "name",
            unique=True,
            partialFilterExpression={"status": {"$in": SHOWN}},
            name="unique_names",
        )
        ensure_index(self._endpoints, NEWEST_FIRST)
        ensure_index(self._endpoints, "notify_at", sparse=True)
        self._controller.update_one({"_id": "creation"}, {"$setOnInsert": {"created": 0}}, upsert=True)

    # creating

    def create(self, endpoint: Endpoint, limit: Limit) -> None:
        """Keep a new endpoint.

        Creations run one after the other, so that none can pass the limit unseen.
        Raises RoleHasEndpoint, NameTaken, ResourceLimitExceeded, and DuplicateKeyError for a taken id.
        """

        def keep(session: ClientSession) -> None:
            self._controller.update_one({"_id": "creation"}, {"$inc": {"created": 1}}, session=session)
            try:
                self._endpoints.insert_one(endpoint, session=session)
            except DuplicateKeyError as error:
                raise _taken(error, endpoint) from None
            if limit.instances is None:
                return
            taken, asked = self._instances(endpoint, limit.counted, session), endpoint[limit.counted]
            if taken > limit.instances:
                raise ResourceLimitExceeded(
                    endpoint["instance_type"], limit.instances, taken - asked, asked, limit.known_types
                )

        with self._database.client.start_session() as session:
            session.with_transaction(keep)

    def _instances(self, endpoint: Endpoint, counted: str, session: ClientSession) -> int:
        """Instances of the endpoint's type at its backend, its own among them."""
        alike = {name: endpoint[name] for name in ("instance_type", "backend")}
        groups = self._endpoints.aggregate(
            [
                {"$match": alike | {"status": {"$in": SERVING}}},
                {"$group": {"_id": None, "taken": {"$sum": f"${counted}"}}},
            ],
            session=session,
        )
        return next((int(group["taken"]) for group in groups), 0)

    def withdraw(self, endpoint_id: str) -> None:
        """Creating → Withdrawn: the backend refused it before anybody could use it."""
        self._change(
            {"_id": endpoint_id, "status": Status.CREATING, "unconfirmed": True},
            {"status": Status.WITHDRAWN, "wanted": 0},
        )

    # reading

    def find(self, name: str, sight: Sight) -> Endpoint | None:
        """The endpoint of this name or id."""
        return self._endpoints.find_one({"$and": [_named([name]), sight.query()]})

    def find_by_id(self, endpoint_id: str, sight: Sight) -> Endpoint | None:
        """The endpoint of this id."""
        return self._endpoints.find_one({"$and": [{"_id": endpoint_id}, sight.query()]})

    def find_all(self, names: Sequence[str], sight: Sight) -> list[Endpoint]:
        """The endpoints of these names or ids."""
        return list(self._endpoints.find({"$and": [_named(names), sight.query()]}))

    def page(self, sight: Sight, creator: str | None, limit: int, last_key: str | None) -> list[Endpoint]:
        """Endpoints newest first, one more than `limit` when there is a next page."""
        query = {
            "$and": [sight.query(), {"creator": creator} if creator else {}, after(last_key, "created_at")]
        }
        return list(self._endpoints.find(query).sort(NEWEST_FIRST).limit(limit + 1))

    def candidates(self, sight: Sight, endpoint_type: str | None, name: str | None) -> list[Endpoint]:
        """Those that may take a job now or soon, newest first."""
        query = [
            {"status": {"$in": SERVING}, "unconfirmed": {"$ne": True}},
            sight.query(),
            {"endpoint_type": endpoint_type} if endpoint_type else {},
            _named([name]) if name else {},
        ]
        return list(self._endpoints.find({"$and": query}).sort(NEWEST_FIRST))

    def live(self) -> list[Endpoint]:
        """All that the controller cares for, oldest first."""
        order = [("created_at", ASCENDING), ("_id", ASCENDING)]
        return list(self._endpoints.find({"status": {"$in": LIVE}}).sort(order))

    # changing

    def begin_deletion(self, endpoint_id: str) -> bool:
        """Any shown state → Deleting; False when it was there already."""
        not_yet = [status for status in SHOWN if status != Status.DELETING]
        return self._change(
            {"_id": endpoint_id, "status": {"$in": not_yet}},
            {
                "status": Status.DELETING,
                "wanted": 0,
                "deleting_at": now(),
                "notify_at": now(),
                "jobs_moved": False,
                "jobs_left": True,
            },
        )

    def finish_deletion(self, endpoint_id: str) -> bool:
        """Deleting → Deleted, once its jobs are moved."""
        return self._change(
            {"_id": endpoint_id, "status": Status.DELETING, "jobs_moved": True},
            {"status": Status.DELETED, "deleted_at": now()},
        )

    def in_service(self, endpoint_id: str) -> bool:
        """Creating → InService."""
        return self._change(
            {"_id": endpoint_id, "status": Status.CREATING},
            {"status": Status.IN_SERVICE, "ended_at": now()},
        )

    def follow(self, endpoint: Endpoint, status: Status) -> bool:
        """Between InService, Updating and RollingBack, as the backend says."""
        return self._change({"_id": endpoint["_id"], "status": endpoint["status"]}, {"status": status})

    def fail(self, endpoint: Endpoint, reason: str) -> bool:
        """From the state that it was seen in → Failed; the jobs that wait for it are moved."""
        return self._change(
            {"_id": endpoint["_id"], "status": endpoint["status"]},
            {
                "status": Status.FAILED,
                "error": reason,
                "ended_at": now(),
                "wanted": 0,
                "notify_at": now(),
                "jobs_moved": False,
            },
        )

    def scale(self, endpoint: Endpoint, wanted: int) -> bool:
        """InService or Updating → Updating with another number of instances."""
        return self._change(
            {
                "_id": endpoint["_id"],
                "status": {"$in": [Status.IN_SERVICE, Status.UPDATING]},
                "wanted": endpoint["wanted"],
            },
            {"status": Status.UPDATING, "wanted": wanted, "quiet_since": None},
        )

    def updated(self, endpoint: Endpoint) -> bool:
        """Updating → InService, when what was wanted has come about."""
        return self._change(
            {"_id": endpoint["_id"], "status": Status.UPDATING, "wanted": endpoint["wanted"]},
            {"status": Status.IN_SERVICE},
        )

    def note_quiet(self, endpoint: Endpoint, since: datetime | None) -> None:
        """Remember since when the endpoint has little to do."""
        self._change(
            {"_id": endpoint["_id"], "quiet_since": endpoint["quiet_since"], "wanted": endpoint["wanted"]},
            {"quiet_since": since},
        )

    def _change(self, old: dict[str, Any], new: dict[str, Any]) -> bool:
        return self._endpoints.update_one(old, {"$set": new}).modified_count == 1

    # telling inference

    def to_notify(self) -> list[Endpoint]:
        """Endpoints that ended and whose waiting jobs inference is to move."""
        return list(self._endpoints.find({"notify_at": {"$lte": now()}}))

    def notified(self, endpoint: Endpoint, jobs_left: bool) -> None:
        """Inference has moved the waiting jobs; it is told twice at least, and until none is left."""
        told = {"jobs_moved": True, "jobs_left": jobs_left}
        update: dict[str, Any] = {"$set": told | {"notify_at": now() + NEXT_NOTICE}}
        if endpoint["jobs_moved"] and not jobs_left:
            update = {"$set": told, "$unset": {"notify_at": ""}}
        self._endpoints.update_one({"_id": endpoint["_id"], "notify_at": endpoint["notify_at"]}, update)

    def forget_notice(self, endpoint: Endpoint) -> None:
        """Do not tell inference: another endpoint has the name now and serves its jobs."""
        self._endpoints.update_one(
            {"_id": endpoint["_id"], "notify_at": endpoint["notify_at"]}, {"$unset": {"notify_at": ""}}
        )

    def name_lives_on(self, endpoint: Endpoint) -> bool:
        """Whether a newer endpoint has taken this one's name."""
        again = {"name": endpoint["name"], "status": {"$in": SHOWN}, "_id": {"$ne": endpoint["_id"]}}
        return self._endpoints.count_documents(again, limit=1) == 1

    # the controller's lease

    def take_lease(self, seconds: float, name: str = "lease") -> str | None:
        """The right to act as the controller for so long; None when another copy has it."""
        holder, moment = uuid.uuid4().hex, now()
        try:
            self._controller.update_one(
                {"_id": name, "until": {"$lt": moment}},
                {"$set": {"holder": holder, "until": moment + timedelta(seconds=seconds)}},
                upsert=True,
            )
        except DuplicateKeyError:
            return None
        return holder

    def drop_lease(self, holder: str, name: str = "lease") -> None:
        """Let the next copy act at once."""
        self._controller.update_one({"_id": name, "holder": holder}, {"$set": {"until": now()}})


def _named(names: Sequence[str]) -> dict[str, Any]:
    return {"$or": [{"name": {"$in": list(names)}}, {"_id": {"$in": list(names)}}]}


def _taken(error: DuplicateKeyError, endpoint: Endpoint) -> Exception:
    where = error.details or {}
    if "roles" in where["keyPattern"]:
        return RoleHasEndpoint(where["keyValue"]["roles"])
    return NameTaken(endpoint["name"]) if "name" in where["keyPattern"] else error
