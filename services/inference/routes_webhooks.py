"""Webhooks: who is told of the ends of jobs, and how telling went."""

from typing import Any

from services.common.audit import concerning
from services.common.identity import current_caller, requires
from services.common.paging import PageQuery, next_key
from services.common.web import ServiceBlueprint
from services.inference.current import current_parts, owner_filter, visible_job
from services.inference.errors import WebhookNotFound
from services.inference.webhook_records import Webhook
from services.inference.webhook_schemas import (
    ChangeWebhook,
    CreatedWebhookShape,
    CreateWebhook,
    DeleteWebhooks,
    DeliveryListShape,
    OneWebhookShape,
    WebhookListShape,
)
from services.inference.webhooks import check_address

blueprint = ServiceBlueprint("webhooks", __name__, description="Webhooks")


def _visible(webhook_id: str) -> Webhook:
    webhook = current_parts().webhook_records.find(webhook_id, owner_filter(current_caller()))
    if webhook is None:
        raise WebhookNotFound(webhook_id)
    return webhook


@blueprint.route("/webhooks", methods=["POST"])
@blueprint.arguments(CreateWebhook)
@blueprint.answers(201, CreatedWebhookShape, "webhook created")
@requires("inference:create")
def create_webhook(wanted: dict[str, Any]) -> dict[str, Any]:
    """Be told of the ends of one's jobs; the secret is shown here and nowhere else."""
    webhook = current_parts().webhooks.create(wanted, current_caller())
    concerning([webhook["_id"]])
    return {"webhook": webhook, "secret": webhook["secret"]}


@blueprint.route("/webhooks", methods=["GET"])
@blueprint.arguments(PageQuery, location="query")
@blueprint.answers(200, WebhookListShape)
@requires("inference:list")
def list_webhooks(query: dict[str, Any]) -> dict[str, Any]:
    """Webhooks, newest first."""
    limit, owner = query["limit"], owner_filter(current_caller())
    found = current_parts().webhook_records.page(owner, limit, query["last_evaluated_key"])
    return {"webhooks": found[:limit], "last_evaluated_key": next_key(found, limit, "created_at")}


@blueprint.route("/webhooks/<webhook_id>", methods=["GET"])
@blueprint.answers(200, OneWebhookShape)
@requires("inference:list")
def get_webhook(webhook_id: str) -> dict[str, Any]:
    """One webhook."""
    return {"webhook": _visible(webhook_id)}


@blueprint.route("/webhooks/<webhook_id>", methods=["PUT"])
@blueprint.arguments(ChangeWebhook)
@blueprint.answers(200, OneWebhookShape)
@requires("inference:create")
def change_webhook(changes: dict[str, Any], webhook_id: str) -> dict[str, Any]:
    """Change the address, the events, or whether it is active."""
    webhook = _visible(webhook_id)
    if "url" in changes:
        check_address("url", changes["url"])
    if changes:
        records = current_parts().webhook_records
        webhook = records.change(webhook_id, webhook["user"], changes) or webhook
    return {"webhook": webhook}


@blueprint.route("/webhooks", methods=["DELETE"])
@blueprint.arguments(DeleteWebhooks)
@blueprint.answers(204)
@requires("inference:create")
def delete_webhooks(body: dict[str, Any]) -> None:
    """Delete webhooks; absent ids are ignored."""
    concerning(body["webhook_id_list"])
    current_parts().webhook_records.remove(body["webhook_id_list"], owner_filter(current_caller()))


@blueprint.route("/webhooks/<webhook_id>/deliveries", methods=["GET"])
@blueprint.arguments(PageQuery, location="query")
@blueprint.answers(200, DeliveryListShape)
@requires("inference:list")
def list_deliveries(query: dict[str, Any], webhook_id: str) -> dict[str, Any]:
    """What was sent to a webhook in the last two weeks, newest first."""
    return _log({"webhook_id": _visible(webhook_id)["_id"]}, query)


@blueprint.route("/inferences/<job_id>/deliveries", methods=["GET"])
@blueprint.arguments(PageQuery, location="query")
@blueprint.answers(200, DeliveryListShape)
@requires("inference:list")
def list_deliveries_of_job(query: dict[str, Any], job_id: str) -> dict[str, Any]:
    """What was sent about a job in the last two weeks, newest first."""
    return _log({"job_id": visible_job(job_id)["_id"]}, query)


def _log(of: dict[str, Any], query: dict[str, Any]) -> dict[str, Any]:
    limit = query["limit"]
    found = current_parts().deliveries.page(of, limit, query["last_evaluated_key"])
    return {"deliveries": found[:limit], "last_evaluated_key": next_key(found, limit, "created_at")}
