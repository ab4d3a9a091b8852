"""Every query and index of `webhooks` (who wants to hear) and `deliveries` (what is told, how it went)."""

from datetime import datetime, timedelta
from typing import Any

from pymongo import ASCENDING, DESCENDING, ReturnDocument
from pymongo.collection import Collection
from pymongo.errors import DuplicateKeyError

from services.common.indexes import ensure_index
from services.common.mongo import Documents
from services.common.paging import after
from services.common.times import now
from services.inference.records import owned_by

Webhook = dict[str, Any]
Delivery = dict[str, Any]
LOG_SECONDS = 14 * 86400
WAITING, DELIVERED, GIVEN_UP = "waiting", "delivered", "given up"
NEWEST_FIRST = [("created_at", DESCENDING), ("_id", DESCENDING)]


class WebhookRecords:
    """Webhooks of users."""

    def __init__(self, database: Documents) -> None:
        self._webhooks: Collection[Webhook] = database["webhooks"]

    def ensure_indexes(self) -> None:
        """Make the indexes that the queries below stand on."""
        ensure_index(self._webhooks, [("user", ASCENDING), *NEWEST_FIRST])

    def add(self, webhook: Webhook) -> Webhook:
        """Keep a new webhook; raises DuplicateKeyError when its id is taken."""
        webhook |= {"created_at": now()}
        self._webhooks.insert_one(webhook)
        return webhook

    def count(self, user: str) -> int:
        """How many a user has."""
        return self._webhooks.count_documents({"user": user})

    def find(self, webhook_id: str, owner: str | None) -> Webhook | None:
        """One webhook; `owner` None sees everybody's."""
        return self._webhooks.find_one({"_id": webhook_id} | owned_by(owner))

    def page(self, owner: str | None, limit: int, last_key: str | None) -> list[Webhook]:
        """Webhooks newest first, one more than `limit` when there is a next page."""
        query = owned_by(owner) | after(last_key, "created_at")
        return list(self._webhooks.find(query).sort(NEWEST_FIRST).limit(limit + 1))

    def change(self, webhook_id: str, owner: str | None, changes: dict[str, Any]) -> Webhook | None:
        """Set members of a webhook; None when it is not there."""
        return self._webhooks.find_one_and_update(
            {"_id": webhook_id} | owned_by(owner), {"$set": changes}, return_document=ReturnDocument.AFTER
        )

    def remove(self, webhook_ids: list[str], owner: str | None) -> None:
        """Forget webhooks; absent ones are ignored."""
        self._webhooks.delete_many({"_id": {"$in": webhook_ids}} | owned_by(owner))

    def remove_of(self, users: list[str]) -> None:
        """Forget all webhooks of these users."""
        self._webhooks.delete_many({"user": {"$in": users}})

    def listening(self, user: str, key_id: str | None) -> list[str]:
        """The ids of those that want to hear of a job that is made now."""
        query = {"user": user, "active": True, "key_id": {"$in": [None, key_id]}}
        return [webhook["_id"] for webhook in self._webhooks.find(query, {"_id": True})]


class DeliveryRecords:
    """What is to be told, at least once; a delivery has the event's id, so that it is made once."""

    def __init__(self, database: Documents) -> None:
        self._deliveries: Collection[Delivery] = database["deliveries"]
        self._turns = database["turns"]

    def ensure_indexes(self) -> None:
        """Make the indexes that the queries below stand on; the log is forgotten after two weeks."""
        of_user = [("state", ASCENDING), ("user", ASCENDING), ("due_at", ASCENDING)]
        ensure_index(self._deliveries, of_user, partialFilterExpression={"state": WAITING}, name="due")
        ensure_index(self._deliveries, [("webhook_id", ASCENDING), *NEWEST_FIRST])
        ensure_index(self._deliveries, [("job_id", ASCENDING), *NEWEST_FIRST])
        ensure_index(self._deliveries, "created_at", expireAfterSeconds=LOG_SECONDS)

    def add(self, delivery: Delivery) -> None:
        """Keep what is to be told; once for each event."""
        at = now()
        fresh = delivery | {"state": WAITING, "created_at": at, "due_at": at, "attempts": 0, "log": []}
        try:
            self._deliveries.insert_one(fresh)
        except DuplicateKeyError:
            return

    def users(self) -> list[str]:
        """Whose events are not told yet; the index skips from one to the next."""
        return list(self._deliveries.distinct("user", {"state": WAITING}))

    def due(self, user: str, limit: int) -> list[Delivery]:
        """What is to be told of a user's now, the longest overdue first."""
        query = {"state": WAITING, "user": user, "due_at": {"$lte": now()}}
        return list(self._deliveries.find(query).sort("due_at", ASCENDING).limit(limit))

    def claim(self, delivery: Delivery, seconds: float) -> bool:
        """Begin an attempt; False when somebody else has. Who dies in it leaves it to the next one."""
        at = now()
        claimed = self._deliveries.update_one(
            {"_id": delivery["_id"], "state": WAITING, "due_at": delivery["due_at"]},
            {"$set": {"due_at": at + timedelta(seconds=seconds)}, "$inc": {"attempts": 1}},
        )
        return claimed.modified_count == 1

    def note(self, delivery_id: str, entry: dict[str, Any], state: str, due_at: datetime | None) -> None:
        """How an attempt went; what is over forgets the secret that it was signed with."""
        update: dict[str, Any] = {"$set": {"state": state}, "$push": {"log": entry}}
        if due_at is None:
            update["$unset"] = {"due_at": "", "secret": ""}
        else:
            update["$set"]["due_at"] = due_at
        self._deliveries.update_one({"_id": delivery_id, "state": WAITING}, update)

    def page(self, of: dict[str, Any], limit: int, last_key: str | None) -> list[Delivery]:
        """The log of a webhook or a job, newest first, one more than `limit` when there is a next page."""
        query = of | after(last_key, "created_at")
        return list(self._deliveries.find(query, {"secret": False}).sort(NEWEST_FIRST).limit(limit + 1))

    def take_turn(self, name: str, seconds: float) -> bool:
        """Whether it is ours to do this work now; the turn ends by itself when we die."""
        at = now()
        try:
            taken = self._turns.update_one(
                {"_id": name, "until": {"$lte": at}},
                {"$set": {"until": at + timedelta(seconds=seconds)}},
                upsert=True,
            )
        except DuplicateKeyError:
            return False
        return bool(taken.modified_count or taken.upserted_id)

    def end_turn(self, name: str) -> None:
        """Let the next one begin."""
        self._turns.update_one({"_id": name}, {"$set": {"until": now()}})
