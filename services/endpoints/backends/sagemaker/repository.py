"""What MongoDB keeps of endpoints at SageMaker: who works on one now, and what was seen of it there."""

import uuid
from datetime import timedelta
from typing import Any

from pymongo import ReturnDocument
from pymongo.collection import Collection

from services.common.mongo import Documents
from services.common.times import now
from services.endpoints.backends.sagemaker.aws import CALL_SECONDS
from services.endpoints.backends.sagemaker.names import NAME, sagemaker_name
from services.endpoints.repository import Endpoint
from services.endpoints.states import LIVE, Status

# It is renewed before each call, so that no call is under way once another copy may begin.
CLAIM_SECONDS = CALL_SECONDS + 10


class Superseded(Exception):
    """Another copy works on the endpoint, or its state has changed: what was begun is not gone on with."""


class Deployments:
    """The endpoints at SageMaker; one copy at a time works on each."""

    def __init__(self, database: Documents) -> None:
        self._endpoints: Collection[Endpoint] = database["endpoints"]

    def to_look_after(self, unseen_for: timedelta | None = None) -> list[str]:
        """The ids of those that are there, or of which something may be left; the longest unseen first.

        `unseen_for`: changes are told by events, so that what is at rest is looked at after so long only.
        """
        left = {"status": {"$in": [Status.FAILED, Status.WITHDRAWN]}, "sagemaker.gone": {"$ne": True}}
        query: dict[str, Any] = {"backend": NAME, "$or": [{"status": {"$in": LIVE}}, left]}
        if unseen_for is not None:
            query = {"$and": [query, {"$nor": [_at_rest(unseen_for)]}]}
        found = self._endpoints.find(query, {"_id": True}).sort("sagemaker.looked_at")
        return [endpoint["_id"] for endpoint in found]

    def tell(self, sagemaker_names: set[str]) -> None:
        """These have changed at AWS: the next round looks at them."""
        for endpoint in self._endpoints.find({"backend": NAME, "status": {"$in": LIVE}}, {"name": True}):
            if sagemaker_name(endpoint) in sagemaker_names:
                self.look_again(endpoint)

    def look_again(self, endpoint: Endpoint) -> None:
        """The next round looks at it, even when it is at rest."""
        self._endpoints.update_one({"_id": endpoint["_id"]}, {"$set": {"sagemaker.told": True}})

    def claim(self, endpoint_id: str) -> Endpoint | None:
        """The endpoint, for this copy to work on; None while another one does."""
        moment = now()
        return self._endpoints.find_one_and_update(
            {
                "_id": endpoint_id,
                "$or": [{"sagemaker.claim": None}, {"sagemaker.claimed_until": {"$lt": moment}}],
            },
            {
                "$set": {"sagemaker.claim": uuid.uuid4().hex, "sagemaker.claimed_until": _later()},
                "$unset": {"sagemaker.told": ""},  # what is told from now on is seen by the next round
            },
            return_document=ReturnDocument.AFTER,
        )

    def renew(self, endpoint: Endpoint) -> None:
        """Keep the claim for one more call. Raises Superseded when it is lost or the state has changed."""
        query = _held(endpoint) | {"status": endpoint["status"]}
        if not self._endpoints.update_one(
            query, {"$set": {"sagemaker.claimed_until": _later()}}
        ).matched_count:
            raise Superseded

    def note(self, endpoint: Endpoint, **seen: Any) -> None:
        """Keep what was seen at AWS: `status`, `current`, `desired`, `failure`, `scaled`, `gone`."""
        self._endpoints.update_one(
            _held(endpoint), {"$set": {f"sagemaker.{name}": value for name, value in seen.items()}}
        )

    def confirm(self, endpoint: Endpoint) -> None:
        """AWS has not refused the new endpoint: it takes jobs."""
        self._endpoints.update_one({"_id": endpoint["_id"]}, {"$unset": {"unconfirmed": ""}})

    def trouble(self, endpoint: Endpoint, sentence: str | None) -> None:
        """Show why a deletion does not come to its end, or that it goes on."""
        self._endpoints.update_one(
            _held(endpoint) | {"status": Status.DELETING, "error": {"$ne": sentence}},
            {"$set": {"error": sentence}},
        )

    def release(self, endpoint: Endpoint) -> None:
        """Let the next copy work on it at once."""
        self._endpoints.update_one(
            _held(endpoint), {"$set": {"sagemaker.claim": None, "sagemaker.looked_at": now()}}
        )


def _at_rest(unseen_for: timedelta) -> dict[str, Any]:
    """In service, as AWS said not long ago, and nothing is to be done."""
    return {
        "status": Status.IN_SERVICE,
        "sagemaker.status": "InService",
        "sagemaker.told": None,
        "sagemaker.looked_at": {"$gt": now() - unseen_for},
        "$or": [{"autoscaling": False}, {"sagemaker.scaled": True}],
    }


def _held(endpoint: Endpoint) -> dict[str, Any]:
    return {"_id": endpoint["_id"], "sagemaker.claim": endpoint["sagemaker"]["claim"]}


def _later() -> Any:
    return now() + timedelta(seconds=CLAIM_SECONDS)
