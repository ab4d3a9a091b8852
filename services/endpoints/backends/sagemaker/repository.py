"""What MongoDB keeps of endpoints at SageMaker: who works on one now, and what was seen of it there."""

import uuid
from datetime import timedelta
from typing import Any

from pymongo import ReturnDocument
from pymongo.collection import Collection

from services.common.mongo import Documents
from services.common.times import now
from services.endpoints.backends.sagemaker.aws import CALL_SECONDS
from services.endpoints.backends.sagemaker.names import NAME
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

    def to_look_after(self) -> list[str]:
        """The ids of those that are there, or of which something may be left; the longest unseen first."""
        left = {"status": {"$in": [Status.FAILED, Status.WITHDRAWN]}, "sagemaker.gone": {"$ne": True}}
        query = {"backend": NAME, "$or": [{"status": {"$in": LIVE}}, left]}
        found = self._endpoints.find(query, {"_id": True}).sort("sagemaker.looked_at")
        return [endpoint["_id"] for endpoint in found]

    def claim(self, endpoint_id: str) -> Endpoint | None:
        """The endpoint, for this copy to work on; None while another one does."""
        moment = now()
        return self._endpoints.find_one_and_update(
            {
                "_id": endpoint_id,
                "$or": [{"sagemaker.claim": None}, {"sagemaker.claimed_until": {"$lt": moment}}],
            },
            {"$set": {"sagemaker.claim": uuid.uuid4().hex, "sagemaker.claimed_until": _later()}},
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


def _held(endpoint: Endpoint) -> dict[str, Any]:
    return {"_id": endpoint["_id"], "sagemaker.claim": endpoint["sagemaker"]["claim"]}


def _later() -> Any:
    return now() + timedelta(seconds=CLAIM_SECONDS)
