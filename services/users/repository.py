"""Every query and index of users and roles; changes to them happen one after the other."""

import threading
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from pymongo import DESCENDING, IndexModel
from pymongo.client_session import ClientSession
from pymongo.errors import DuplicateKeyError

from services.common.identity import RESOURCES
from services.common.indexes import ensure_indexes
from services.common.mongo import Documents
from services.common.paging import after
from services.common.times import now

T = TypeVar("T")
Document = dict[str, Any]

DEFAULT_ROLE = "IT Operator"
EVERYTHING = tuple(f"{resource}:all" for resource in RESOURCES)
NEWEST_FIRST = [("created", DESCENDING), ("_id", DESCENDING)]
GUARD = "users and roles"


class Repository:
    """Users and roles of the deployment."""

    def __init__(self, database: Documents, session: ClientSession | None = None) -> None:
        self._database = database
        self._session = session
        self._users = database["users"]
        self._roles = database["roles"]
        self._former_users = database["former_users"]
        self._guard = database["guard"]
        self._turn = threading.Lock()

    def prepare(self) -> None:
        """Create the indexes, the guard and the default role."""
        common = [
            IndexModel("skeleton", unique=True),
            IndexModel(NEWEST_FIRST),
            # What one created and oneself, in order: MongoDB merges the two of these.
            IndexModel([("creator", 1), *NEWEST_FIRST]),
            IndexModel([("_id", 1), ("created", DESCENDING)]),
            IndexModel("permissions"),
        ]
        ensure_indexes(self._users, [*common, IndexModel("roles")])
        ensure_indexes(self._roles, common)
        _insert_if_absent(self._guard, {"_id": GUARD, "changes": 0})
        _insert_if_absent(
            self._roles,
            {
                "_id": DEFAULT_ROLE,
                "skeleton": DEFAULT_ROLE.casefold(),
                "permissions": list(EVERYTHING),
                "creator": "",
                "created": now(),
            },
        )

    def exclusively(self, change: Callable[["Repository"], T]) -> T:
        """Run `change` in a transaction that no other change of users and roles overlaps.

        Every such transaction writes the guard document first: of two that overlap MongoDB lets one
        through and starts the other again, on what the first has left. So what `change` reads stays
        true until it is done. `change` may run several times.
        """
        with self._turn, self._database.client.start_session() as session:
            inside = Repository(self._database, session)
            return session.with_transaction(lambda _: inside._guarded(change))

    def _guarded(self, change: Callable[["Repository"], T]) -> T:
        self._guard.update_one({"_id": GUARD}, {"$inc": {"changes": 1}}, session=self._session)
        return change(self)

    # Users

    def user(self, username: str) -> Document | None:
        return self._users.find_one({"_id": username}, session=self._session)

    def user_named_like(self, skeleton: str) -> Document | None:
        """The user whose name looks like this."""
        return self._users.find_one({"skeleton": skeleton}, session=self._session)

    def any_user(self) -> bool:
        """Whether there is a user at all."""
        return self._users.find_one({}, {"_id": 1}, session=self._session) is not None

    def users(self, query: Document, limit: int, key: str | None) -> list[Document]:
        """Users newest first; up to limit + 1."""
        matching = {"$and": [query, after(key, "created")]}
        return list(self._users.find(matching, {"password_hash": 0}).sort(NEWEST_FIRST).limit(limit + 1))

    def put_user(self, document: Document) -> None:
        """Write a user. Raises DuplicateKeyError when the name is too like another's."""
        self._users.replace_one({"_id": document["_id"]}, document, upsert=True, session=self._session)

    def set_password(self, username: str, old_hash: str, new_hash: str, version: str | None = None) -> bool:
        """Replace a password that is still `old_hash`; a new `version` ends the user's tokens."""
        change = {"password_hash": new_hash} | ({"version": version} if version else {})
        result = self._users.update_one(
            {"_id": username, "password_hash": old_hash}, {"$set": change}, session=self._session
        )
        return result.matched_count == 1

    def delete_user(self, username: str, heir: str) -> None:
        """Delete a user with sessions and bound keys; what the user created belongs to `heir` from now on.

        Otherwise somebody who gets the same name later would own it.
        """
        self._users.delete_one({"_id": username}, session=self._session)
        self._former_users.replace_one(
            {"_id": username}, {"_id": username, "heir": heir}, upsert=True, session=self._session
        )
        self.end_sessions(username)
        self.delete_keys_bound_to(username)
        for collection in (self._users, self._roles):
            collection.update_many({"creator": username}, {"$set": {"creator": heir}}, session=self._session)

    def heir_of_former_user(self, username: str) -> str | None:
        """Who deleted the last user of this name; None when there was none."""
        former = self._former_users.find_one({"_id": username}, session=self._session)
        return former["heir"] if former else None

    def delete_keys_bound_to(self, username: str) -> None:
        """Delete the API keys that act as a user."""
        self._database["api_keys"].delete_many({"username": username}, session=self._session)

    def end_sessions(self, username: str) -> None:
        """End all sessions of a user."""
        self._database["sessions"].update_many(
            {"username": username, "ended_at": None}, {"$set": {"ended_at": now()}}, session=self._session
        )

    def roles_of(self, usernames: Iterable[str]) -> dict[str, list[str]]:
        """The roles of those of the names that users have."""
        wanted = {"_id": {"$in": list(usernames)}}
        found = self._users.find(wanted, {"roles": 1}, session=self._session)
        return {user["_id"]: user["roles"] for user in found}

    def somebody_may(self, permission: str) -> bool:
        """Whether any user holds exactly `permission`, directly or by a role."""
        granting = self._roles.find({"permissions": permission}, {"_id": 1}, session=self._session)
        roles = [role["_id"] for role in granting]
        holders = {"$or": [{"permissions": permission}, {"roles": {"$in": roles}}]}
        return self._users.find_one(holders, {"_id": 1}, session=self._session) is not None

    def permissions_of(self, users: Iterable[Document]) -> dict[str, frozenset[str]]:
        """What each of the users holds, directly and by roles."""
        users = list(users)
        names = {role for user in users for role in user["roles"]}
        by_role = {role["_id"]: role["permissions"] for role in self.named_roles(names)}
        return {
            user["_id"]: frozenset(user["permissions"]).union(
                *(by_role.get(role, ()) for role in user["roles"])
            )
            for user in users
        }

    # Roles

    def role(self, name: str) -> Document | None:
        return self._roles.find_one({"_id": name}, session=self._session)

    def role_named_like(self, skeleton: str) -> Document | None:
        """The role whose name looks like this."""
        return self._roles.find_one({"skeleton": skeleton}, session=self._session)

    def named_roles(self, names: Iterable[str]) -> list[Document]:
        """Those of the names that exist."""
        return list(self._roles.find({"_id": {"$in": list(names)}}, session=self._session))

    def roles(self, query: Document, limit: int, key: str | None) -> list[Document]:
        """Roles newest first; up to limit + 1."""
        matching = {"$and": [query, after(key, "created")]}
        return list(self._roles.find(matching).sort(NEWEST_FIRST).limit(limit + 1))

    def put_role(self, document: Document) -> None:
        """Write a role. Raises DuplicateKeyError when the name is too like another's."""
        self._roles.replace_one({"_id": document["_id"]}, document, upsert=True, session=self._session)

    def delete_roles(self, names: list[str]) -> None:
        """Delete roles; users lose them."""
        self._roles.delete_many({"_id": {"$in": names}}, session=self._session)
        self._users.update_many(
            {"roles": {"$in": names}}, {"$pull": {"roles": {"$in": names}}}, session=self._session
        )


def _insert_if_absent(collection: Any, document: Document) -> None:
    try:
        collection.insert_one(document)
    except DuplicateKeyError:
        return
