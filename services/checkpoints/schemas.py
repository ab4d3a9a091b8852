"""The shapes of requests and answers of the checkpoints service."""

from typing import Any

from marshmallow import EXCLUDE, Schema, ValidationError, fields, validate, validates_schema

from services.checkpoints.checkpoint import ACTIVE, DISABLED, STATUSES
from services.common.checkpoint_types import CHECKPOINT_TYPES
from services.common.fields import MISSING, Body, Flag, Items, Object, Part, Text, Whole
from services.common.paging import LARGEST_PAGE

MOST_PARTS = 10_000  # of one file: S3's limit
MOST_FILES = 100
NAME_CHARACTERS = 1024  # longer ones get the sentence of the schema, shorter ones that of the file name

_sha256 = validate.Regexp(r"^[0-9A-Fa-f]{64}$", error="a sha256 is 64 hexadecimal digits")


class UploadFile(Body):
    """A file that the client is going to upload."""

    filename = Text(required=True, min_length=1, max_length=NAME_CHARACTERS)
    parts_number = Whole(required=True, minimum=1, maximum=MOST_PARTS)
    sha256 = Text(load_default=None, allow_none=True, validate=_sha256)


class Params(Body):
    """What clients say about a checkpoint: any members, of which two have a meaning."""

    class Meta:
        unknown = "include"

    message = Text(max_length=10_000, allow_none=True)
    creator = Text(min_length=1, max_length=256, allow_none=True)


def allowed_list() -> Items:
    """Who may use a checkpoint: roles, users, or `*`."""
    return Items(Text(min_length=1, max_length=256), max_items=1000, load_default=None, allow_none=True)


class NewCheckpoint(Body):
    """POST /checkpoints."""

    checkpoint_type = Text(required=True, choices=CHECKPOINT_TYPES)
    filenames = Items(Part(UploadFile), min_items=1, max_items=MOST_FILES)
    urls = Items(Text(min_length=1, max_length=8192), min_items=1, max_items=MOST_FILES)
    params = Part(Params, load_default=dict)
    allowed_roles_or_users = allowed_list()

    @validates_schema(pass_original=True, skip_on_field_errors=False)
    def one_way_in(self, _: dict[str, Any], body: dict[str, Any], **__: Any) -> None:
        """Files are uploaded or imported, not both."""
        if "filenames" not in body and "urls" not in body:
            raise ValidationError(MISSING, "filenames")
        if "filenames" in body and "urls" in body:
            raise ValidationError("give filenames or urls, not both", "urls")


class Tag(Body):
    """A part that the client uploaded."""

    ETag = Text(required=True, min_length=1, max_length=256)
    PartNumber = Whole(required=True, minimum=1, maximum=MOST_PARTS)


class ChangedCheckpoint(Body):
    """PUT /checkpoints/{id}."""

    status = Text(choices=(ACTIVE, DISABLED))
    multi_parts_tags = Object(
        keys=Text(max_length=NAME_CHARACTERS),
        values=Items(Part(Tag), max_items=MOST_PARTS),
        load_default=dict,
        allow_none=True,
    )
    name = Text(min_length=1, max_length=NAME_CHARACTERS)
    checkpoint_type = Text(choices=CHECKPOINT_TYPES)
    params = Part(Params)
    allowed_roles_or_users = allowed_list()


class NamedChange(ChangedCheckpoint):
    """PUT /checkpoints, as older clients send it: the id in the body."""

    checkpoint_id = Text(required=True, min_length=1, max_length=256)


class CheckpointIds(Body):
    """DELETE /checkpoints."""

    checkpoint_id_list = Items(Text(min_length=1, max_length=256), required=True, min_items=1)


class CheckpointQuery(Schema):
    """GET /checkpoints."""

    class Meta:
        unknown = EXCLUDE

    status = Items(Text(choices=STATUSES))
    types = Items(Text(choices=CHECKPOINT_TYPES))
    roles = Items(Text(max_length=256))
    username = Text(max_length=256)
    page = Whole(minimum=1, maximum=2**31, load_default=None)
    per_page = Whole(minimum=1, maximum=LARGEST_PAGE, load_default=None)
    limit = Whole(minimum=1, maximum=LARGEST_PAGE, load_default=None)
    last_evaluated_key = Text(load_default=None, max_length=512)


class CheckpointShape(Schema):
    """A checkpoint as clients see it; both spellings of its location are published."""

    id = fields.String()
    type = fields.String()
    status = fields.String()
    s3_location = fields.String()
    s3Location = fields.String()
    name = fields.List(fields.String())
    created = fields.Float()
    params = fields.Dict()
    allowed_roles_or_users = fields.List(fields.String())


class OneCheckpoint(Schema):
    """One checkpoint."""

    checkpoint = fields.Nested(CheckpointShape)


class CreatedCheckpoint(OneCheckpoint):
    """A checkpoint and a URL for each part of its files."""

    s3PresignUrl = fields.Dict(keys=fields.String(), values=fields.List(fields.String()))


class CheckpointPage(Schema):
    """A page of checkpoints."""

    checkpoints = fields.List(fields.Nested(CheckpointShape))
    page = fields.Integer()
    per_page = fields.Integer()
    pages = fields.Integer()
    total = fields.Integer()
    last_evaluated_key = fields.String(allow_none=True)


class ArrivedPart(Schema):
    """A part that S3 holds."""

    PartNumber = fields.Integer()
    ETag = fields.String()
    Size = fields.Integer()


class MissingPart(Schema):
    """A part that is yet to come, and where to PUT it."""

    PartNumber = fields.Integer()
    url = fields.String()


class UploadShape(Schema):
    """How far the upload of a file is."""

    filename = fields.String()
    upload_id = fields.String(allow_none=True)
    parts_number = fields.Integer()
    complete = fields.Boolean()
    parts = fields.List(fields.Nested(ArrivedPart))
    missing = fields.List(fields.Nested(MissingPart))


class UploadList(Schema):
    """The uploads of a checkpoint."""

    checkpoint_id = fields.String()
    status = fields.String()
    uploads = fields.List(fields.Nested(UploadShape))


class ResolveRequest(Body):
    """POST /internal/resolve."""

    username = Text(required=True)
    roles = Items(Text(), load_default=list)
    see_all = fields.Boolean(load_default=False)
    models = Object(keys=Text(), values=Items(Text()), required=True)


class FoundModel(Schema):
    """A model file that the user may use."""

    type = fields.String()
    name = fields.String()
    id = fields.String()
    s3_location = fields.String()
    bucket = fields.String()
    key = fields.String()
    size = fields.Integer()
    etag = fields.String()
    sha256 = fields.String(allow_none=True)


class MissingModel(Schema):
    """A model file that is not there for this user."""

    type = fields.String()
    name = fields.String()


class Resolved(Schema):
    """The models that were found and those that were not."""

    models = fields.List(fields.Nested(FoundModel))
    missing = fields.List(fields.Nested(MissingModel))


class NamesOfType(Body):
    """POST /internal/usable."""

    username = Text(required=True)
    roles = Items(Text(), load_default=list)
    see_all = fields.Boolean(load_default=False)
    type = Text(required=True, choices=CHECKPOINT_TYPES)


class UsableNames(Schema):
    """File names, newest first."""

    names = fields.List(fields.String())


class Reservation(Body):
    """A checkpoint that the platform makes."""

    id = Text(required=True, min_length=1, max_length=64)
    type = Text(required=True, choices=CHECKPOINT_TYPES)
    filename = Text(required=True, min_length=1, max_length=NAME_CHARACTERS)
    creator = Text(required=True, min_length=1)
    allowed = Items(Text(), required=True)
    params = Object(load_default=dict)


class MadeProgress(Body):
    """How far the making of a checkpoint is."""

    id = Text(required=True)
    progress = Object(required=True)


class Adoption(Body):
    """The object that becomes a checkpoint's file, and what is known of it."""

    id = Text(required=True)
    key = Text(required=True, min_length=1)
    params = Object(load_default=dict)


class GivenUp(Body):
    """Why a checkpoint is not going to be made."""

    id = Text(required=True)
    error = Text(required=True)


class ForUser(Body):
    """On whose behalf another service asks."""

    username = Text(required=True, min_length=1)
    roles = Items(Text(), load_default=list)
    see_all = Flag(load_default=False)


class ModelUpload(ForUser):
    """A model: files to upload, or URLs to import; `id` is what a repeat finds."""

    id = Text(load_default=None, allow_none=True, max_length=64)
    token = Text(load_default=None, allow_none=True, max_length=4096)
    filenames = Items(Part(UploadFile), max_items=MOST_FILES, load_default=list)
    urls = Items(Text(min_length=1, max_length=8192), max_items=MOST_FILES, load_default=list)
    params = Part(Params, load_default=dict)


class ModelCompletion(ForUser):
    """The uploaded parts of a model."""

    id = Text(required=True)
    tags = Object(
        required=True,
        keys=Text(max_length=NAME_CHARACTERS),
        values=Items(Part(Tag), max_items=MOST_PARTS),
    )


class StatesRequest(ForUser):
    """Which checkpoints are asked for."""

    ids = Items(Text(), required=True)
