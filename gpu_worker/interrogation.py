"""The tasks interrogate_clip and interrogate_deepbooru: say in words what a picture shows."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gpu_worker.captions import Captioner, load_captioner
from gpu_worker.errors import RequestFault
from gpu_worker.files import StoredFile
from gpu_worker.images import flatten, read_picture
from gpu_worker.jobs import ModelFile
from gpu_worker.limits import MAX_NAME_LENGTH, number
from gpu_worker.onnx_models import ONNX, load_onnx
from gpu_worker.onnx_sessions import OnnxModel
from gpu_worker.tasks import TaskContext, TaskResult

INTERROGATOR_TYPE = "Interrogator"
KNOWN = frozenset({"image", "model", "threshold"})
# Categories of a tagger's selected_tags.csv.
CHARACTER, RATING = "4", "9"
CHARACTER_THRESHOLD = 0.85
MOST_TABLE_BYTES = 20 * 1024 * 1024
WHITE = (255, 255, 255)


@dataclass(frozen=True, slots=True)
class Tag:
    """A row of the table: what the number at the same place of the network's output is sure of."""

    name: str
    category: str


def run_clip(context: TaskContext) -> TaskResult:
    """A sentence from BLIP; the WebUI's lists of artists and media are not packaged, so it adds none."""
    picture = flatten(read_picture("image", context.parameters.get("image")))
    weights, words = _pair(context, ".safetensors", ".txt", "BLIP's model.safetensors and its vocab.txt")
    captioner: Captioner = load_captioner(context, weights, words)
    return _said(context, lambda: captioner.caption(picture, context.progress.check), {"model": weights.name})


def run_deepbooru(context: TaskContext) -> TaskResult:
    """Tags, sorted by name, with spaces and escaped brackets as the WebUI writes DeepBooru's."""
    picture = flatten(read_picture("image", context.parameters.get("image")))
    threshold = number("interrogate.threshold", context.parameters.get("threshold"))
    graph, table = _pair(context, ONNX, ".csv", "a tagger's model.onnx and its selected_tags.csv")
    model = load_onnx(context, graph)
    tags = context.memory.other(
        "tags", table, context.open_file, lambda stored: _read_table(stored, table.name)
    )
    scores: dict[str, float] = {}

    def caption() -> str:
        sure = find_tags(model, tags, picture, threshold)
        scores.update(sure)
        return ", ".join(sorted(_written(name) for name in sure))

    return _said(context, caption, {"model": graph.name, "tags": scores})


def find_tags(
    model: OnnxModel, tags: Sequence[Tag], picture: Image.Image, threshold: float
) -> dict[str, float]:
    """The tags that a WD tagger is sure of, the surest first; ratings are no tags.

    Input (blue, green, red from 0 to 255 on a white square) and thresholds: https://huggingface.co/SmilingWolf.
    """
    shape = model.inputs[0][1] if model.inputs else ()
    if len(shape) != 4 or shape[3] not in (3, None):
        raise RequestFault(
            f"{model.name} is no tagger: it must take pictures whose last side is three channels"
        )
    side = shape[1] or 448
    found = model.run(_squared(picture, side))[0].reshape(-1)
    if len(found) != len(tags):
        raise RequestFault(f"{model.name} knows {len(found)} tags, its table has {len(tags)} rows")
    sure = {
        tag.name: round(float(score), 4)
        for tag, score in zip(tags, found, strict=True)
        if tag.category != RATING
        and score > (max(threshold, CHARACTER_THRESHOLD) if tag.category == CHARACTER else threshold)
    }
    return dict(sorted(sure.items(), key=lambda item: -item[1]))


def _squared(picture: Image.Image, side: int) -> NDArray[np.float32]:
    longest = max(picture.size)
    square = Image.new("RGB", (longest, longest), WHITE)
    square.paste(picture, ((longest - picture.width) // 2, (longest - picture.height) // 2))
    pixels = np.asarray(square.resize((side, side), Image.Resampling.BICUBIC), dtype=np.float32)
    return np.ascontiguousarray(pixels[None, ..., ::-1])


def _read_table(stored: StoredFile, name: str) -> tuple[list[Tag], int]:
    size = stored.path.stat().st_size
    if size > MOST_TABLE_BYTES:
        raise RequestFault(f"{name} has {size} bytes, a table of tags at most {MOST_TABLE_BYTES}")
    try:
        rows = list(csv.DictReader(io.StringIO(stored.path.read_text(encoding="utf-8-sig"))))
        return [Tag(row["name"], row["category"]) for row in rows], size
    except (UnicodeDecodeError, csv.Error, KeyError) as error:
        raise RequestFault(f"{name} is no table of tags: it needs the columns name and category") from error


def _written(name: str) -> str:
    spaced = name if len(name) <= 3 else name.replace("_", " ")
    return spaced.replace("\\", "\\\\").replace("(", "\\(").replace(")", "\\)")


def _pair(context: TaskContext, first: str, second: str, what: str) -> tuple[ModelFile, ModelFile]:
    """The job's two files of the endings, or the sentence that names what is missing."""
    files = context.job.of_type(INTERROGATOR_TYPE)
    found = [
        next((file for file in files if PurePosixPath(file.name).suffix.casefold() == ending), None)
        for ending in (first, second)
    ]
    if found[0] is None or found[1] is None:
        missing = " and ".join(
            ending for ending, file in zip((first, second), found, strict=True) if file is None
        )
        raise RequestFault(
            f"{context.job.task_type} needs {what} in models.{INTERROGATOR_TYPE}: no {missing} file is there"
        )
    return found[0], found[1]


def _said(context: TaskContext, caption: Any, details: Mapping[str, Any]) -> TaskResult:
    """A result of words alone: they are in ``info``, which the job's parameter file holds."""
    context.progress.start(0, 1)
    words = caption()
    context.progress.step(1, finished=0, batch=0)
    unsupported = [key[:MAX_NAME_LENGTH] for key in context.parameters if key not in KNOWN][:MAX_NAME_LENGTH]
    return TaskResult([], {"caption": words, **details, "unsupported": unsupported, "infotexts": []})
