"""Shapes of the requests and answers of the endpoints service."""

import re
from typing import Any

from marshmallow import Schema, ValidationError, fields, validate, validates_schema

from services.common.backends import BackendName
from services.common.fields import MISSING, Body, Flag, Items, Text, Whole
from services.common.paging import PageQuery
from services.common.times import as_text
from services.endpoints.states import EndpointType

# With "esd-real-time-" before it a name stays within SageMaker's 63 characters.
LONGEST_NAME = 49
NAME = validate.Regexp(
    r"([A-Za-z0-9](-*[A-Za-z0-9])*)?\Z",
    error='string "{input}" is not a name: letters, digits and single hyphens between them',
)
# The registries of Amazon ECR: https://docs.aws.amazon.com/AmazonECR/latest/userguide/Registries.html
ECR_IMAGE = re.compile(
    r"\d{12}\.dkr\.ecr(-fips)?\.[a-z0-9-]+\.amazonaws\.com(\.cn)?"
    r"/[a-z0-9]+([._/-]+[a-z0-9]+)*(:[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?(@sha256:[0-9a-f]{64})?"
)
OLDER_FORM = {"instance_type", "initial_instance_count"}
NEWER_FORM = {"endpoint_type", "autoscaling_enabled", "assign_to_roles", "creator"}


def image(uri: str) -> None:
    """Raise ValidationError unless the text names an image in Amazon ECR; an empty one names none."""
    if uri and not ECR_IMAGE.fullmatch(uri):
        raise ValidationError(
            f'custom_docker_image_uri "{uri}" is not an image in Amazon ECR: '
            "it looks like 123456789012.dkr.ecr.us-east-1.amazonaws.com/NAME:TAG"
        )


class NewEndpoint(Body):
    """What POST /endpoints takes: the full form, or the older one of just two fields."""

    instance_type = Text(required=True, min_length=1, max_length=128)
    initial_instance_count = Whole(required=True, minimum=1)
    endpoint_name = Text(max_length=LONGEST_NAME, validate=NAME, allow_none=True, load_default=None)
    endpoint_type = Text(choices=list(EndpointType))
    autoscaling_enabled = Flag()
    assign_to_roles = Items(Text(min_length=1, max_length=256), min_items=1, max_items=100)
    creator = Text(min_length=1, max_length=256)
    custom_docker_image_uri = Text(max_length=512, validate=image, allow_none=True, load_default=None)
    backend = Text(choices=list(BackendName), allow_none=True, load_default=None)
    min_instance_number = Whole(minimum=0, allow_none=True, load_default=None)
    max_instance_number = Whole(minimum=1, allow_none=True, load_default=None)

    @validates_schema(pass_original=True, skip_on_field_errors=False)
    def full_form_is_complete(self, _body: dict[str, Any], original: dict[str, Any], **_: Any) -> None:
        """A body with any field of the full form needs all of its required fields."""
        present = original.keys() & self.fields.keys()
        if present and present <= OLDER_FORM:
            return
        if missing := NEWER_FORM - original.keys():
            raise ValidationError({name: [MISSING] for name in missing})


class EndpointsToDelete(Body):
    """What DELETE /endpoints takes: `endpoint_name_list` is the newer name of the list."""

    delete_endpoint_list = Items(Text(min_length=1, max_length=256), min_items=1)
    endpoint_name_list = Items(Text(min_length=1, max_length=256), min_items=1)
    username = Text(min_length=1, max_length=256, load_default=None)

    @validates_schema(pass_original=True, skip_on_field_errors=False)
    def one_list_is_there(self, _body: dict[str, Any], original: dict[str, Any], **_: Any) -> None:
        """The older name of the list goes with a username, as its clients send it."""
        if "endpoint_name_list" in original:
            return
        if missing := {"delete_endpoint_list", "username"} - original.keys():
            raise ValidationError({name: [MISSING] for name in missing})


class EndpointsQuery(PageQuery):
    """The parameters of GET /endpoints."""

    username = Text(min_length=1, max_length=256, load_default=None)


class Moment(fields.Field):
    """A time as the API writes it."""

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> str | None:
        return as_text(value)


class Endpoint(Schema):
    """An endpoint as clients see it; counts are text, as they always were."""

    EndpointDeploymentJobId = fields.String(attribute="_id")
    autoscaling = fields.Boolean()
    max_instance_number = fields.String(attribute="max_instances")
    startTime = Moment(attribute="created_at")
    status = fields.Constant(None, attribute="legacy_status")
    instance_type = fields.String()
    current_instance_count = fields.String(attribute="instance_count")
    endTime = Moment(attribute="ended_at")
    endpoint_status = fields.String(attribute="status")
    endpoint_name = fields.String(attribute="name")
    error = fields.String(allow_none=True)
    endpoint_type = fields.String()
    owner_group_or_role = fields.List(fields.String(), attribute="roles")
    backend = fields.String()


class EndpointList(Schema):
    """One page of endpoints, newest first."""

    endpoints = fields.List(fields.Nested(Endpoint))
    last_evaluated_key = fields.String(allow_none=True)


class Nothing(Schema):
    """An empty object."""


class Instance(Schema):
    """A worker that serves an endpoint and what it does now."""

    worker_id = fields.String(attribute="_id")
    host = fields.String()
    instance_type = fields.String()
    device = fields.String()
    device_name = fields.String()
    memory_bytes = fields.Integer()
    version = fields.String()
    state = fields.String()
    instances = fields.Integer()
    ready = fields.Boolean()
    jobs_running = fields.Integer()
    last_heartbeat = Moment(attribute="heartbeat_at")
    loaded = fields.List(fields.String())
    running = fields.List(fields.String())


class Instances(Schema):
    """The workers of an endpoint."""

    instances = fields.List(fields.Nested(Instance))


class Heartbeat(Body):
    """What a GPU worker says of itself every two seconds."""

    instance_type = Text(required=True, min_length=1, max_length=128)
    state = Text(required=True, choices=["idle", "busy", "stopping"])
    slots = Whole(required=True, maximum=1000)
    host = Text(max_length=256, load_default="")
    device = Text(max_length=128, load_default="")
    device_name = Text(max_length=256, load_default="")
    memory_bytes = Whole(load_default=0, allow_none=True)
    version = Text(max_length=128, load_default="")
    loaded = Items(Text(max_length=1024), load_default=list)
    running = Items(Text(max_length=128), load_default=list)
    endpoints = Items(Text(max_length=256), load_default=list)


class EndpointToServe(Schema):
    """What a worker needs to know of an endpoint."""

    id = fields.String(attribute="endpoint_id")
    name = fields.String()
    type = fields.String()


class EndpointsToServe(Schema):
    """What the worker is to serve from now on."""

    endpoints = fields.List(fields.Nested(EndpointToServe))


class CandidatesQuery(Body):
    """Which endpoints may take a job of this user."""

    roles = Items(Text(max_length=256), required=True)
    see_all = Flag(load_default=False)
    endpoint_type = Text(allow_none=True, load_default=None)
    name = Text(allow_none=True, load_default=None)


class EndpointQuery(Body):
    """Which endpoint, for which user."""

    id = Text(required=True)
    username = Text(required=True)
    roles = Items(Text(max_length=256), required=True)
    see_all = Flag(load_default=False)


class FoundEndpoint(Schema):
    """The endpoint as clients see it, null when this user sees none of the id."""

    endpoint = fields.Nested(Endpoint, allow_none=True)


class Candidate(Schema):
    """An endpoint that may take a job now or soon."""

    id = fields.String(attribute="_id")
    name = fields.String()
    type = fields.String(attribute="endpoint_type")
    instance_type = fields.String()
    backend = fields.String()
    status = fields.String()
    roles = fields.List(fields.String())
    instance_count = fields.Integer()
    sagemaker_endpoint_name = fields.String(allow_none=True)
    sagemaker_output_path = fields.String(allow_none=True)
    sagemaker_failure_path = fields.String(allow_none=True)


class Candidates(Schema):
    """Newest first."""

    endpoints = fields.List(fields.Nested(Candidate))


class Worker(Schema):
    """A worker that was heard lately."""

    id = fields.String(attribute="_id")
    state = fields.String()
    instance_type = fields.String()
    endpoints = fields.List(fields.String(), attribute="serving")
    slots = fields.Integer()


class Workers(Schema):
    """The workers that were heard lately."""

    workers = fields.List(fields.Nested(Worker))
