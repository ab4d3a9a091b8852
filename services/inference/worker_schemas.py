"""Shapes of what GPU workers and other services ask of the inference service."""

from marshmallow import fields, validate

from services.common.fields import Body, Items, Object, Text, Whole
from services.inference.previews import LARGEST_PREVIEW
from services.inference.schemas import ENDPOINT_TYPES

LONGEST_PREVIEW = 4 * LARGEST_PREVIEW // 3  # in base64
IMAGE_NAME = r"image_[0-9]{1,4}\.png"
MOST_IMAGES = 200


class Claim(Body):
    """What a worker can take."""

    worker_id = Text(required=True, min_length=1, max_length=255)
    endpoints = Items(Text(min_length=1, max_length=255), required=True)
    warm = Items(Text(max_length=255), load_default=list)
    room = Whole(minimum=1, maximum=64, load_default=1)
    pixels = Whole(minimum=1, load_default=None)


class Upcoming(Body):
    """For which endpoints a worker looks ahead."""

    worker_id = Text(required=True, min_length=1, max_length=255)
    endpoints = Items(Text(min_length=1, max_length=255), required=True)


class Attempt(Body):
    """Which attempt a worker speaks of."""

    worker_id = Text(required=True, min_length=1, max_length=255)
    attempt = Whole(required=True, minimum=1)


class ProgressReport(Attempt):
    """How far the attempt is; `at` is the worker's clock when the event happened, epoch seconds."""

    step = Whole(load_default=0)
    steps = Whole(load_default=None, allow_none=True)
    image = Whole(load_default=0)
    images = Whole(load_default=None, allow_none=True)
    event = Text(load_default=None, allow_none=True, choices=("first_step", "last_step"))
    at = fields.Float(load_default=None, allow_none=True)


class PreviewReport(Attempt):
    """A small picture of what is being made, JPEG or PNG in base64, after `step` steps of the batch that
    follows `image` finished pictures."""

    step = Whole(load_default=0)
    image = Whole(load_default=0)
    picture = Text(required=True, min_length=1, max_length=LONGEST_PREVIEW)


class WantUploads(Attempt):
    """Result files that a worker is about to put."""

    files = Items(Text(min_length=1, max_length=128), required=True, min_items=1, max_items=200)


class Completion(Attempt):
    """The results of an attempt."""

    images = Items(Text(validate=validate.Regexp(IMAGE_NAME + r"\Z")), required=True, max_items=MOST_IMAGES)
    info = Object(load_default=dict)
    timings = Object(load_default=dict)


class Failure(Attempt):
    """Why an attempt ended."""

    kind = Text(required=True, choices=("request", "passing", "machine"))
    message = Text(required=True, max_length=100_000)


class EndpointNames(Body):
    """Endpoints whose backlog is asked for."""

    endpoints = Items(Text(min_length=1, max_length=255), required=True)


class CheckpointIds(Body):
    """Checkpoints of which one asks whether jobs need them."""

    checkpoint_ids = Items(Text(min_length=1, max_length=64), required=True)


class FormerUsers(Body):
    """Names that somebody else is about to have."""

    usernames = Items(Text(min_length=1, max_length=255), required=True)


class EndpointDeleted(Body):
    """An endpoint that takes no more jobs."""

    name = Text(required=True, min_length=1)
    roles = Items(Text(), required=True)
    endpoint_type = Text(required=True, choices=ENDPOINT_TYPES)
