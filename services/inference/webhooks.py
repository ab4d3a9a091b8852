"""Who hears of the end of a job: webhooks of users and API keys, and the address that a job names itself."""

import base64
import secrets
from typing import Any

from services.common.errors import BadRequest
from services.common.guard import RefusedAddress, check_url
from services.common.idempotency import create_once
from services.common.identity import Caller
from services.inference.errors import TooManyWebhooks
from services.inference.states import Status
from services.inference.webhook_records import Webhook, WebhookRecords

MOST_OF_A_USER = 20
SECRET_BYTES = 32
EVENTS = tuple(str(status) for status in (Status.SUCCEED, Status.FAILED, Status.CANCELLED))


class Webhooks:
    """Creates webhooks, and finds those of a new job."""

    def __init__(self, records: WebhookRecords) -> None:
        self._records = records

    def create(self, wanted: dict[str, Any], caller: Caller) -> Webhook:
        """Keep a new webhook of the caller. Raises BadRequest, TooManyWebhooks."""
        check_address("url", wanted["url"])
        if self._records.count(caller.name) >= MOST_OF_A_USER:
            raise TooManyWebhooks(MOST_OF_A_USER)
        webhook = {
            "user": caller.name,
            "key_id": caller.key_id if wanted["this_key_only"] else None,
            "url": wanted["url"],
            "events": wanted["events"],
            "active": True,
            "secret": new_secret(),
        }
        made: Webhook = create_once(
            create=lambda webhook_id: self._records.add({"_id": webhook_id} | webhook),
            find=lambda webhook_id: self._records.find(webhook_id, caller.name),
        )
        return made

    def of_new_job(self, owner: str, key_id: str | None, url: str | None) -> dict[str, Any]:
        """What a new job keeps of those who want to hear of its end; nothing when nobody does."""
        if url is not None:
            check_address("webhook_url", url)
        listening = self._records.listening(owner, key_id)
        if not listening and url is None:
            return {}
        own = {"webhook": {"url": url, "secret": new_secret()}} if url is not None else {}
        return {"webhooks": listening, "webhooks_due": True} | own


def new_secret() -> str:
    """A secret as the Standard Webhooks specification writes them."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def check_address(field: str, url: str) -> None:
    """Raise BadRequest unless it is an address that events could be sent to."""
    try:
        check_url(url)
    except RefusedAddress as reason:
        sentence = f"{field} cannot be used: {reason}"
        raise BadRequest(sentence, errors={field: [sentence]}) from None
