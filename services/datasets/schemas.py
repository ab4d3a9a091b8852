"""The shapes of requests and answers of the datasets service."""

from marshmallow import EXCLUDE, Schema, fields

from services.common.fields import Body, Items, Object, Part, Text, Whole
from services.common.paging import PageQuery
from services.datasets.background import CROP, MODES
from services.datasets.states import DISABLED, ENABLED, STATUSES

MOST_FILES = 10_000
LONGEST_CAPTION = 16_384
SMALLEST_SIDE, LARGEST_SIDE = 64, 4096


def _file_name(required: bool = True) -> Text:
    return Text(required=required, min_length=1, max_length=1024)


class NewItem(Body):
    """A picture or caption file that the client is going to upload."""

    filename = _file_name()
    name = Text(max_length=1024, allow_none=True)
    type = Text(max_length=100, allow_none=True)
    caption = Text(max_length=LONGEST_CAPTION, allow_none=True)
    params = Object(allow_none=True)


def _allowed() -> Items:
    return Items(Text(min_length=1, max_length=256), max_items=1000, allow_none=True)


class NewDataset(Body):
    """POST /datasets."""

    dataset_name = Text(required=True, min_length=1, max_length=1024)
    content = Items(Part(NewItem), required=True, max_items=MOST_FILES)
    params = Object(allow_none=True)
    prefix = Text(max_length=200, allow_none=True)
    creator = Text(min_length=1, max_length=256, allow_none=True)
    allowed_roles_or_users = _allowed()


class ChangedDataset(Body):
    """PUT /datasets/{name}."""

    status = Text(choices=(ENABLED, DISABLED))
    params = Object()
    allowed_roles_or_users = _allowed()


class NamedChangedDataset(ChangedDataset):
    """PUT /datasets, as older clients send it."""

    dataset_name = Text(required=True, min_length=1, max_length=1024)


class DatasetNames(Body):
    """DELETE /datasets."""

    dataset_name_list = Items(Text(min_length=1, max_length=1024), required=True, min_items=1)


class NewItems(Body):
    """POST /datasets/{name}/items."""

    content = Items(Part(NewItem), required=True, min_items=1, max_items=MOST_FILES)


class Captions(Body):
    """PUT /datasets/{name}/items: captions by the pictures' file names."""

    captions = Object(required=True, keys=Text(max_length=1024), values=Text(max_length=LONGEST_CAPTION))


class FileNames(Body):
    """DELETE /datasets/{name}/items."""

    filename_list = Items(_file_name(required=False), required=True, min_items=1, max_items=MOST_FILES)


class Crop(Body):
    """POST /datasets/{name}/crop."""

    width = Whole(required=True, minimum=SMALLEST_SIDE, maximum=LARGEST_SIDE)
    height = Whole(required=True, minimum=SMALLEST_SIDE, maximum=LARGEST_SIDE)
    mode = Text(choices=MODES, load_default=CROP)
    dataset_name = Text(min_length=1, max_length=1024, allow_none=True)


class DatasetQuery(PageQuery):
    """GET /datasets."""

    dataset_status = Items(Text(choices=STATUSES), load_default=list)


class CreatedDataset(Schema):
    """Where the client uploads."""

    datasetName = fields.String()
    s3PresignUrl = fields.Dict(keys=fields.String(), values=fields.String())


class ChangedStatus(Schema):
    """What became of a change."""

    datasetName = fields.String()
    status = fields.String()


class DatasetPage(Schema):
    """One page of data sets; each holds its own params beside the members listed in docs/api.md."""

    datasets = fields.List(fields.Dict())
    last_evaluated_key = fields.String(allow_none=True)


class ItemShape(Schema):
    """A file of a data set."""

    key = fields.String()
    filename = fields.String()
    name = fields.String()
    type = fields.String()
    preview_url = fields.String(allow_none=True)
    dataStatus = fields.String()
    caption = fields.String(allow_none=True)
    problems = fields.List(fields.String())
    width = fields.Integer(allow_none=True)
    height = fields.Integer(allow_none=True)
    params = fields.Dict()


class OneDataset(Schema):
    """A data set with its files."""

    dataset_name = fields.String()
    datasetName = fields.String()
    s3 = fields.String()
    status = fields.String()
    timestamp = fields.Float()
    creator = fields.String()
    allowed_roles_or_users = fields.List(fields.String())
    verifying = fields.Boolean()
    making = fields.Dict(allow_none=True)
    error = fields.String(allow_none=True)
    params = fields.Dict()
    data = fields.List(fields.Nested(ItemShape))


class ResolveRequest(Schema):
    """Which data sets a training asks for, and for whom."""

    class Meta:
        unknown = EXCLUDE

    names = Items(Text(max_length=1024), required=True, max_items=100)
    username = Text(required=True)
    roles = Items(Text(), load_default=list)
    see_all = fields.Boolean(load_default=False)


class ResolvedPicture(Schema):
    """A picture to train on."""

    filename = fields.String()
    key = fields.String()
    etag = fields.String()
    size = fields.Integer()
    width = fields.Integer()
    height = fields.Integer()
    caption = fields.String(allow_none=True)


class ResolvedDataset(Schema):
    """A data set as trainings see it."""

    name = fields.String()
    status = fields.String()
    verifying = fields.Boolean()
    faulty = fields.Integer()
    pictures = fields.List(fields.Nested(ResolvedPicture))


class Resolved(Schema):
    """Those that are there and visible, and the names of those that are not."""

    datasets = fields.List(fields.Nested(ResolvedDataset))
    missing = fields.List(fields.String())
