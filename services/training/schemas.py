"""The shapes of requests and answers of the training service."""

from marshmallow import Schema, ValidationError, fields, validates_schema

from services.common.fields import Body, Flag, Items, Object, Part, Text, Whole, wrong_type
from services.common.paging import PageQuery
from services.training.merging import METHODS, WEIGHTED_SUM
from services.training.models import STATES
from services.training.states import SHOWN

LONGEST_NAME = 1024
MOST_PARTS = 10_000
JOB_STATES = tuple(dict.fromkeys(SHOWN.values()))


class Fraction(fields.Field):
    """A number with bounds; digits in a string count, as older clients send them."""

    def __init__(self, least: float, most: float, **options: object) -> None:
        self.least, self.most = least, most
        super().__init__(**options)  # type: ignore[arg-type]

    def _deserialize(self, value: object, *_: object, **__: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise wrong_type(value, "number")
        try:
            number = float(value)
        except ValueError:
            raise wrong_type(value, "number") from None
        if not self.least <= number <= self.most:
            raise ValidationError(f"it must be from {self.least:g} to {self.most:g}, not {value}")
        return number


class UploadFile(Body):
    """A file that the client is going to upload."""

    filename = Text(required=True, min_length=1, max_length=LONGEST_NAME)
    parts_number = Whole(minimum=1, maximum=MOST_PARTS, load_default=1)


class NewModel(Body):
    """POST /models."""

    model_type = Text(required=True, min_length=1, max_length=100)
    name = Text(required=True, min_length=1, max_length=200)
    filenames = Items(Part(UploadFile), allow_none=True)
    checkpoint_id = Text(max_length=64, allow_none=True)
    params = Object(load_default=dict)


class Tag(Body):
    """A part that the client uploaded."""

    ETag = Text(required=True, min_length=1, max_length=256)
    PartNumber = Whole(required=True, minimum=1, maximum=MOST_PARTS)


class CompletedModel(Body):
    """PUT /models/{id}."""

    status = Text(choices=("Creating", "Complete", "Active"), load_default="Creating")
    multi_parts_tags = Object(
        keys=Text(max_length=LONGEST_NAME),
        values=Items(Part(Tag), max_items=MOST_PARTS),
        load_default=dict,
        allow_none=True,
    )


class NamedCompletedModel(CompletedModel):
    """PUT /models, as older clients send it."""

    model_id = Text(required=True, min_length=1, max_length=64)


class ModelIds(Body):
    """DELETE /models."""

    model_id_list = Items(Text(min_length=1, max_length=64), required=True, min_items=1)


class ModelQuery(PageQuery):
    """GET /models."""

    types = Items(Text(max_length=100), load_default=list)
    status = Items(Text(choices=STATES), load_default=list)


class NewTraining(Body):
    """POST /trainings."""

    train_type = Text(required=True, min_length=1, max_length=100)
    model_id = Text(max_length=64, allow_none=True)
    params = Object(required=True)
    filenames = Items(Part(UploadFile), allow_none=True)


class ChangedTraining(Body):
    """PUT /trainings/{id}."""

    status = Text(required=True, choices=("Training", "Stopped"))


class NamedChangedTraining(ChangedTraining):
    """PUT /trainings, as older clients send it."""

    train_job_id = Text(required=True, min_length=1, max_length=64)


class TrainingIds(Body):
    """DELETE /trainings."""

    training_id_list = Items(Text(min_length=1, max_length=64), required=True, min_items=1)


class TrainingQuery(PageQuery):
    """GET /trainings."""

    types = Items(Text(max_length=100), load_default=list)
    status = Items(Text(choices=JOB_STATES), load_default=list)


class NewMerge(Body):
    """POST /inference/run-model-merge."""

    primary_model_name = Text(required=True, min_length=1, max_length=LONGEST_NAME)
    secondary_model_name = Text(max_length=LONGEST_NAME, allow_none=True, load_default=None)
    tertiary_model_name = Text(max_length=LONGEST_NAME, allow_none=True, load_default=None)
    interp_method = Text(choices=METHODS, load_default=WEIGHTED_SUM)
    multiplier = Fraction(-10, 10, load_default=0.5)
    custom_name = Text(max_length=LONGEST_NAME, allow_none=True)
    bake_in_vae = Text(max_length=LONGEST_NAME, allow_none=True)
    save_as_half = Flag(load_default=True)
    checkpoint_format = Text(max_length=100, allow_none=True)

    @validates_schema
    def only_safetensors(self, data: dict[str, object], **_: object) -> None:
        """A .ckpt is a pickle, which can run code when it is loaded."""
        if data.get("checkpoint_format") not in {None, "", "safetensors"}:
            raise ValidationError("only safetensors is written", "checkpoint_format")


# answers; members that depend on the client's own params are objects


class OneJob(Schema):
    """A model or training, in `job`."""

    job = fields.Dict()
    s3PresignUrl = fields.Dict()


class ModelPage(Schema):
    """One page of models."""

    models = fields.List(fields.Dict())
    last_evaluated_key = fields.String(allow_none=True)


class TrainingPage(Schema):
    """One page of trainings."""

    trainJobs = fields.List(fields.Dict())
    last_evaluated_key = fields.String(allow_none=True)


class OneTraining(Schema):
    """A training with its progress."""

    id = fields.String()
    checkpoint_id = fields.String(allow_none=True)
    checkpoint_name = fields.String(allow_none=True)
    job_status = fields.String()
    model_id = fields.String(allow_none=True)
    modelName = fields.String()
    params = fields.Dict()
    timestamp = fields.Float()
    train_type = fields.String()
    progress = fields.Dict(allow_none=True)
    loss = fields.List(fields.List(fields.Float()))
    samples = fields.List(fields.Dict())
    saves = fields.List(fields.Dict())
    unknown_parameters = fields.List(fields.String())
    notes = fields.List(fields.String())
    error = fields.String(allow_none=True)
    waits_for = fields.String(allow_none=True)
    attempts = fields.Integer()
    startTime = fields.String(allow_none=True)
    endTime = fields.String(allow_none=True)
    output_location = fields.String()
    sagemakerTrainName = fields.String(allow_none=True)


class MergeStarted(Schema):
    """A merge that waits for a worker."""

    primary_model_name = fields.String()
    secondary_model_name = fields.String()
    tertiary_model_name = fields.String()
    checkpoint = fields.Dict()


# GPU workers


class Claim(Body):
    """A worker that has nothing to do."""

    worker_id = Text(required=True, min_length=1)
    instance_type = Text(required=True, min_length=1)


class Attempt(Body):
    """Which attempt speaks."""

    worker_id = Text(required=True, min_length=1)
    attempt = Whole(required=True, minimum=1)


class Report(Attempt):
    """How far the work is."""

    step = Whole(required=True)
    steps = Whole(load_default=None, allow_none=True)
    loss = fields.Float(load_default=None, allow_none=True)
    rate = fields.Float(load_default=None, allow_none=True)
    remaining_seconds = fields.Float(load_default=None, allow_none=True)
    doing = Text(load_default="", max_length=200)
    losses = fields.List(fields.List(fields.Float()), load_default=list)
    unknown_parameters = Items(Text(max_length=200), load_default=None, allow_none=True)
    notes = Items(Text(max_length=1000), load_default=None, allow_none=True)


class WantUploads(Attempt):
    """Files that are going to be uploaded, with the number of parts of each."""

    files = Object(required=True, keys=Text(max_length=100), values=Whole(minimum=1, maximum=MOST_PARTS))


class Uploaded(Body):
    """A file whose parts are uploaded."""

    name = Text(required=True, max_length=100)
    upload_id = Text(required=True, max_length=1024)
    etags = Items(Text(max_length=256), required=True, min_items=1, max_items=MOST_PARTS)


class Saved(Attempt):
    """A state, sample or intermediate result."""

    file = Part(Uploaded, required=True)
    step = Whole(required=True)


class Completion(Attempt):
    """The end of the work."""

    file = Part(Uploaded, load_default=None, allow_none=True)
    stopped = Flag(load_default=False)
    facts = Object(load_default=dict)


class Failure(Attempt):
    """The attempt ended without a result."""

    kind = Text(required=True, choices=("request", "passing", "machine"))
    message = Text(required=True, max_length=10_000)


class CheckpointIds(Body):
    """Which checkpoints are asked for."""

    checkpoint_ids = Items(Text(), required=True)
