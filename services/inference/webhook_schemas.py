"""Shapes of webhooks and their delivery logs."""

from marshmallow import Schema, fields

from services.common.fields import Body, Flag, Items, Text
from services.inference.webhooks import EVENTS

LONGEST_URL = 2048


def _events() -> Text:
    return Text(choices=EVENTS)


class CreateWebhook(Body):
    """A webhook of the caller."""

    url = Text(required=True, min_length=1, max_length=LONGEST_URL)
    events = Items(_events(), load_default=lambda: list(EVENTS), min_items=1, max_items=len(EVENTS))
    this_key_only = Flag(load_default=False)


class ChangeWebhook(Body):
    """What is to change of a webhook."""

    url = Text(min_length=1, max_length=LONGEST_URL)
    events = Items(_events(), min_items=1, max_items=len(EVENTS))
    active = Flag()


class DeleteWebhooks(Body):
    """Ids of webhooks to delete."""

    webhook_id_list = Items(Text(min_length=1, max_length=64), required=True, min_items=1)


# answers


class WebhookShape(Schema):
    id = fields.String(attribute="_id")
    user = fields.String()
    url = fields.String()
    events = fields.List(fields.String())
    active = fields.Boolean()
    key_id = fields.String(allow_none=True)
    created = fields.Function(lambda webhook: webhook["created_at"].timestamp())


class OneWebhookShape(Schema):
    webhook = fields.Nested(WebhookShape)


class CreatedWebhookShape(OneWebhookShape):
    secret = fields.String()


class WebhookListShape(Schema):
    webhooks = fields.List(fields.Nested(WebhookShape))
    last_evaluated_key = fields.String(allow_none=True)


class AttemptShape(Schema):
    at = fields.Function(lambda entry: entry["at"].timestamp())
    status = fields.Integer(allow_none=True)
    error = fields.String(allow_none=True)
    ms = fields.Integer()


class DeliveryShape(Schema):
    id = fields.String(attribute="_id")
    inference_id = fields.String(attribute="job_id")
    event = fields.String()
    state = fields.String()
    attempts = fields.Integer()
    log = fields.List(fields.Nested(AttemptShape))
    created = fields.Function(lambda delivery: delivery["created_at"].timestamp())


class DeliveryListShape(Schema):
    deliveries = fields.List(fields.Nested(DeliveryShape))
    last_evaluated_key = fields.String(allow_none=True)
