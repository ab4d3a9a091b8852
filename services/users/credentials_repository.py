"""Every query and index of what proves an identity: signing keys, API keys, sessions, sign-in counters."""

from datetime import datetime
from typing import Any

from pymongo import DESCENDING, IndexModel, ReturnDocument
from pymongo.errors import DuplicateKeyError
from pymongo.write_concern import WriteConcern

from services.common.indexes import ensure_index, ensure_indexes
from services.common.mongo import Documents
from services.common.paging import after
from services.common.times import now

Document = dict[str, Any]


class CredentialsRepository:
    """Secrets are kept as SHA-256 hashes only; signing keys are the one exception."""

    def __init__(self, database: Documents) -> None:
        self._signing_keys = database["signing_keys"]
        self._api_keys = database["api_keys"]
        self._sessions = database["sessions"]
        self._refresh_tokens = database["refresh_tokens"]
        self._counters = database["sign_in_counters"]
        self._hasty_keys = self._api_keys.with_options(write_concern=WriteConcern(w=0))

    def prepare(self) -> None:
        """Create the indexes."""
        ends = IndexModel("expires_at", expireAfterSeconds=0)
        ensure_indexes(
            self._signing_keys,
            [IndexModel("number", unique=True), IndexModel("retires_at", expireAfterSeconds=0)],
        )
        ensure_indexes(
            self._api_keys,
            [
                IndexModel("hash", unique=True),
                IndexModel([("created", DESCENDING), ("_id", DESCENDING)]),
                IndexModel([("username", 1), ("created", DESCENDING), ("_id", DESCENDING)]),
            ],
        )
        ensure_indexes(self._sessions, [IndexModel("username"), ends])
        ensure_indexes(self._refresh_tokens, [ends])
        ensure_index(self._counters, "ends", expireAfterSeconds=0)

    # Signing keys

    def signing_keys(self) -> list[Document]:
        """The keys that are believed now, newest first."""
        believed = {"$or": [{"retires_at": None}, {"retires_at": {"$gt": now()}}]}
        return list(self._signing_keys.find(believed).sort("number", DESCENDING))

    def last_signing_key_number(self) -> int:
        """The number of the newest key."""
        newest = self._signing_keys.find_one(sort=[("number", DESCENDING)])
        return newest["number"] if newest else 0

    def add_signing_key(self, kid: str, private: bytes, number: int) -> None:
        """Keep a new key, unless another instance has made this number already."""
        try:
            self._signing_keys.insert_one(
                {"_id": kid, "number": number, "private_key": private, "created": now()}
            )
        except DuplicateKeyError:
            return

    def retire_signing_keys_before(self, number: int, moment: datetime) -> None:
        """Let older keys end at `moment`, or earlier when they were to."""
        older = {"number": {"$lt": number}}
        self._signing_keys.update_many(older | {"retires_at": None}, {"$set": {"retires_at": moment}})
        self._signing_keys.update_many(older, {"$min": {"retires_at": moment}})

    # API keys

    def add_api_key(self, document: Document) -> None:
        """Keep a new API key. Raises DuplicateKeyError when its id or hash is known."""
        self._api_keys.insert_one(document)

    def api_key(self, key_id: str) -> Document | None:
        """A key by its id, expired or not."""
        return self._api_keys.find_one({"_id": key_id})

    def api_key_by_hash(self, key_hash: str) -> Document | None:
        """A key that has not expired."""
        return self._api_keys.find_one(
            {"hash": key_hash, "$or": [{"expires_at": None}, {"expires_at": {"$gt": now()}}]}
        )

    def any_api_key(self) -> bool:
        """Whether there is a key at all."""
        return self._api_keys.find_one({}, {"_id": 1}) is not None

    def api_keys(self, username: str | None, limit: int, key: str | None) -> list[Document]:
        """Keys newest first, one user's or all; up to limit + 1."""
        query = after(key, "created") | ({"username": username} if username is not None else {})
        order = [("created", DESCENDING), ("_id", DESCENDING)]
        return list(self._api_keys.find(query).sort(order).limit(limit + 1))

    def count_api_keys(self, username: str) -> int:
        """How many keys are bound to a user."""
        return self._api_keys.count_documents({"username": username})

    def bound_key(self, key_id: str | None) -> Document | None:
        """A key by its id when it is bound to a user."""
        return self._api_keys.find_one({"_id": key_id, "username": {"$ne": None}})

    def delete_api_keys(self, ids: list[str], username: str | None = None) -> int:
        """Delete keys, only those of `username` when it is given; returns how many went."""
        query: Document = {"_id": {"$in": ids}}
        if username is not None:
            query["username"] = username
        return self._api_keys.delete_many(query).deleted_count

    def note_use(self, key_id: str, moment: datetime, not_before: datetime) -> None:
        """Write down when a key was last used; not waited for, and not more often than asked."""
        self._hasty_keys.update_one(
            {"_id": key_id, "$or": [{"last_used_at": None}, {"last_used_at": {"$lt": not_before}}]},
            {"$set": {"last_used_at": moment}},
        )

    # Sessions and refresh tokens

    def add_session(self, document: Document, token_hash: str) -> None:
        """Begin a family of refresh tokens with its first one."""
        self._sessions.insert_one(document)
        self.add_refresh_token(token_hash, document["_id"], document["expires_at"])

    def add_refresh_token(self, token_hash: str, session_id: str, expires_at: datetime) -> None:
        """Keep the hash of a new refresh token of a session."""
        self._refresh_tokens.insert_one(
            {"_id": token_hash, "session": session_id, "used_at": None, "expires_at": expires_at}
        )

    def use_refresh_token(self, token_hash: str) -> Document | None:
        """Mark a token as used; None when it is unknown, expired or was used before."""
        return self._refresh_tokens.find_one_and_update(
            {"_id": token_hash, "used_at": None, "expires_at": {"$gt": now()}},
            {"$set": {"used_at": now()}},
            return_document=ReturnDocument.AFTER,
        )

    def session_of_refresh_token(self, token_hash: str) -> str | None:
        """The session that a token belongs to, used or not."""
        token = self._refresh_tokens.find_one({"_id": token_hash})
        return token["session"] if token else None

    def live_session(self, session_id: str, username: str | None = None) -> Document | None:
        """A session that was not ended."""
        query: Document = {"_id": session_id, "ended_at": None, "expires_at": {"$gt": now()}}
        return self._sessions.find_one(query | ({"username": username} if username is not None else {}))

    def end_session(self, session_id: str) -> None:
        """End a session with all its tokens."""
        self._sessions.update_one({"_id": session_id, "ended_at": None}, {"$set": {"ended_at": now()}})

    # Sign-in counters

    def count_attempt(self, counter: str, window_ends: datetime) -> Document:
        """Count an attempt; the window begins with its first one. Returns the counter."""
        fresh = {"$lte": ["$ends", now()]}  # $lte is also true where the field is missing
        found = self._counters.find_one_and_update(
            {"_id": counter},
            [
                {
                    "$set": {
                        "attempts": {"$cond": [fresh, 1, {"$add": ["$attempts", 1]}]},
                        "ends": {"$cond": [fresh, window_ends, "$ends"]},
                    }
                }
            ],
            upsert=True,
            return_document=ReturnDocument.AFTER,
        )
        assert found is not None  # an upsert
        return found

    def forget_attempts(self, counters: list[str], one_off: list[str]) -> None:
        """After a success: drop `counters`, and take this attempt off the others."""
        self._counters.delete_many({"_id": {"$in": counters}})
        self._counters.update_many(
            {"_id": {"$in": one_off}, "attempts": {"$gt": 0}}, {"$inc": {"attempts": -1}}
        )
