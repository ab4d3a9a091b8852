"""Shapes of the inference service's requests and answers."""

import json
from typing import Any

from marshmallow import EXCLUDE, INCLUDE, Schema, ValidationError, fields, validate, validates_schema

from services.common.checkpoint_types import CHECKPOINT_TYPES
from services.common.fields import MISSING, Body, Flag, Items, Object, Text, Whole
from services.common.paging import PageQuery
from services.inference.scheduling import HIGHEST_PRIORITY, LOWEST_PRIORITY, PRIORITY_WORDS
from services.inference.states import SHOWN, TASK_TYPES

LARGEST_FILTERS = 16 * 2**10
ENDPOINT_TYPES = ("Async", "Real-time")


def _file_names() -> Items:
    return Items(Text(min_length=1, max_length=255), max_items=100)


class Priority(Whole):
    """How urgent a job is: a whole number, or a word for one."""

    def __init__(self, **options: Any) -> None:
        super().__init__(minimum=LOWEST_PRIORITY, maximum=HIGHEST_PRIORITY, **options)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> int:
        word = PRIORITY_WORDS.get(value) if isinstance(value, str) else None
        return super()._deserialize(value, attr, data, **kwargs) if word is None else word


class Filters(Object):
    """What a client keeps with a job: stored, never interpreted, and small."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> dict[Any, Any]:
        members = super()._deserialize(value, attr, data, **kwargs)
        size = len(json.dumps(members))
        if size > LARGEST_FILTERS:
            raise ValidationError(f"filters has {size} bytes as JSON (maximum allowed: {LARGEST_FILTERS})")
        return members


class CreateInference(Body):
    """A job; its parameters are uploaded later, or come along as a JSON text or as members."""

    class Meta:
        unknown = INCLUDE

    user_id = Text(load_default=None, allow_none=True, max_length=255)
    inference_type = Text(load_default=None, allow_none=True, choices=ENDPOINT_TYPES)
    task_type = Text(required=True, choices=TASK_TYPES)
    models = Object(load_default=dict, keys=Text(choices=CHECKPOINT_TYPES), values=_file_names())
    priority = Priority(load_default=None, allow_none=True)
    preview = Flag(load_default=False)
    filters = Filters(load_default=dict)
    sagemaker_endpoint_name = Text(load_default=None, allow_none=True, max_length=255)
    sagemaker_endpoint = Text(load_default=None, allow_none=True, max_length=255)
    webhook_url = Text(load_default=None, allow_none=True, max_length=2048)
    payload_string = Text(load_default=None, allow_none=True, max_length=32 * 2**20)

    @validates_schema(pass_original=True, skip_on_field_errors=False)
    def check_form(self, _loaded: Any, original: dict[str, Any], **_: Any) -> None:
        """Without parameters in the body it is the form of 1.4.0, which names user, type and models."""
        if not brings_parameters(original):
            missing = [name for name in ("user_id", "inference_type", "models") if name not in original]
            if missing:
                raise ValidationError({name: [MISSING] for name in missing})


def brings_parameters(body: dict[str, Any]) -> bool:
    """Whether a creating body holds generation parameters, as a text or as members (the 2023-07 form)."""
    return "payload_string" in body or bool(set(body) - ABOUT_THE_JOB)


ABOUT_THE_JOB = frozenset(CreateInference._declared_fields)


class StartInference(Body):
    """What may be said when a job is started; older clients say other things here, which are ignored."""

    priority = Priority(load_default=None, allow_none=True)


class DeleteInferences(Body):
    """Ids of jobs to delete."""

    inference_id_list = Items(Text(min_length=1, max_length=64), required=True, min_items=1)


class ListInferences(PageQuery):
    """Which jobs to list."""

    status = Text(load_default=None, choices=tuple(SHOWN))
    task_type = Text(load_default=None, choices=TASK_TYPES)
    endpoint = Text(load_default=None, max_length=255)


class UploadQuery(Schema):
    """Where a client wants to put a file of its own."""

    class Meta:
        unknown = EXCLUDE

    key = Text(load_default=None, max_length=2048)
    s3_bucket_name = Text(load_default=None, max_length=255)


# answers

MODEL_NAMES = fields.List(fields.String(), metadata={"title": "ModelNames"})
UPLOAD_URL = fields.String(metadata={"title": "UploadUrl"})


class ModelShape(Schema):
    id = fields.String()
    name = fields.List(fields.String())
    type = fields.String()


class CreatedJobShape(Schema):
    id = fields.String()
    type = fields.String()
    api_params_s3_location = fields.String()
    api_params_s3_upload_url = fields.String()
    webhook_secret = fields.String()
    models = fields.List(fields.Nested(ModelShape))


class CreatedShape(Schema):
    inference = fields.Nested(CreatedJobShape)


class StartedJobShape(Schema):
    inference_id = fields.String()
    status = fields.String()
    endpoint_name = fields.String()
    output_path = fields.String()


class StartedShape(Schema):
    inference = fields.Nested(StartedJobShape)


class UsedModelShape(Schema):
    id = fields.String()
    model_name = fields.String()
    s3 = fields.String()
    type = fields.String()


class JobParamsShape(Schema):
    input_body_s3 = fields.String()
    input_body_presign_url = fields.String()
    used_models = fields.Dict(keys=fields.String(), values=fields.List(fields.Nested(UsedModelShape)))
    sagemaker_inference_endpoint_id = fields.String()
    sagemaker_inference_endpoint_name = fields.String()
    sagemaker_inference_instance_type = fields.String(allow_none=True)
    output_path = fields.String()


class ProgressShape(Schema):
    step = fields.Integer()
    steps = fields.Integer(allow_none=True)
    image = fields.Integer()
    images = fields.Integer(allow_none=True)


class TimelineShape(Schema):
    created = fields.String(allow_none=True)
    queued = fields.String(allow_none=True)
    claimed = fields.String(allow_none=True)
    first_step = fields.String(allow_none=True)
    last_step = fields.String(allow_none=True)
    fetchable = fields.String(allow_none=True)


class ChangeShape(Schema):
    state = fields.String()
    time = fields.String()
    actor = fields.String()
    reason = fields.String(allow_none=True)


class JobShape(Schema):
    InferenceJobId = fields.String()
    status = fields.String(validate=validate.OneOf(tuple(SHOWN)))
    taskType = fields.String()
    inference_type = fields.String()
    createTime = fields.String()
    startTime = fields.String(allow_none=True)
    completeTime = fields.String(allow_none=True)
    image_names = fields.List(fields.String())
    img_presigned_urls = fields.List(fields.String())
    output_presigned_urls = fields.List(fields.String())
    params = fields.Nested(JobParamsShape)
    owner_group_or_role = fields.List(fields.String())
    sagemakerRaw = fields.Dict(allow_none=True)
    inference_info_name = fields.String(allow_none=True)
    progress = fields.Nested(ProgressShape, allow_none=True)
    preview_presigned_url = fields.String(allow_none=True)
    priority = fields.Integer()
    queue_position = fields.Integer(allow_none=True)
    estimated_wait_seconds = fields.Float(allow_none=True)
    attempts = fields.Integer()
    timeline = fields.Nested(TimelineShape)
    history = fields.List(fields.Nested(ChangeShape))
    error = fields.String(allow_none=True)


class JobListShape(Schema):
    inferences = fields.List(fields.Nested(JobShape))
    last_evaluated_key = fields.String(allow_none=True)
