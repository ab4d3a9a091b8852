"""The tasks extra-single-image and extra-batch-images: the WebUI's postprocessing of finished pictures."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image

from gpu_worker import infotext
from gpu_worker.errors import RequestFault
from gpu_worker.faces import FaceRestorer, find_restorer
from gpu_worker.images import read_picture
from gpu_worker.infotext import exact
from gpu_worker.limits import MAX_IMAGES, MAX_NAME_LENGTH, flag, number, shown, text, whole
from gpu_worker.tasks import Picture, TaskContext, TaskResult
from gpu_worker.upscaling import NONE, Upscaler, find_upscaler, upscale_by, upscale_to

BY_FACTOR = 0
TO_SIZE = 1
KNOWN = frozenset(
    {
        *("resize_mode", "show_extras_results", "gfpgan_visibility", "codeformer_visibility"),
        *("codeformer_weight", "upscaling_resize", "upscaling_resize_w", "upscaling_resize_h"),
        *("upscaling_crop", "upscaler_1", "upscaler_2", "extras_upscaler_2_visibility", "upscale_first"),
        *("image", "imageList", "images", "save_images", "send_images"),
    }
)


@dataclass(frozen=True, slots=True)
class Extras:
    """A checked request of the WebUI's ``/sdapi/v1/extra-…`` routes; names as there."""

    resize_mode: int
    upscaling_resize: float
    upscaling_resize_w: int
    upscaling_resize_h: int
    upscaling_crop: bool
    upscaler_1: str
    upscaler_2: str
    extras_upscaler_2_visibility: float
    gfpgan_visibility: float
    codeformer_visibility: float
    codeformer_weight: float
    upscale_first: bool


Step = Callable[[Image.Image, dict[str, object]], Image.Image]


def run_single(context: TaskContext) -> TaskResult:
    """Works on the picture ``image``."""
    return _run(context, lambda parameters: [("", read_picture("image", parameters.get("image")))])


def run_batch(context: TaskContext) -> TaskResult:
    """Works on the pictures ``imageList[].data``."""
    return _run(context, _listed)


def parse_extras(document: Mapping[str, Any]) -> Extras:
    """Checks everything but the pictures; raises `RequestFault` naming the field."""
    names = ("upscaler_1", "upscaler_2")
    first, second = (text(name, document.get(name), MAX_NAME_LENGTH) or NONE for name in names)
    return Extras(
        resize_mode=whole("extras.resize_mode", document.get("resize_mode")),
        upscaling_resize=number("upscaling_resize", document.get("upscaling_resize")),
        upscaling_resize_w=whole("upscaling_resize_w", document.get("upscaling_resize_w")),
        upscaling_resize_h=whole("upscaling_resize_h", document.get("upscaling_resize_h")),
        upscaling_crop=flag("upscaling_crop", document.get("upscaling_crop"), default=True),
        upscaler_1=first,
        upscaler_2=second,
        extras_upscaler_2_visibility=number(
            "extras_upscaler_2_visibility", document.get("extras_upscaler_2_visibility")
        ),
        gfpgan_visibility=number("gfpgan_visibility", document.get("gfpgan_visibility")),
        codeformer_visibility=number("codeformer_visibility", document.get("codeformer_visibility")),
        codeformer_weight=number("codeformer_weight", document.get("codeformer_weight")),
        upscale_first=flag("upscale_first", document.get("upscale_first")),
    )


def _listed(parameters: Mapping[str, Any]) -> list[tuple[str, Image.Image]]:
    entries = parameters.get("imageList", parameters.get("images"))
    if not isinstance(entries, list) or not entries:
        raise RequestFault(f"imageList must be a list of at least one picture, not {shown(entries)}")
    if len(entries) > MAX_IMAGES:
        raise RequestFault(f"imageList must have at most {MAX_IMAGES} pictures, it has {len(entries)}")
    pictures = []
    for position, entry in enumerate(entries):
        field = f"imageList[{position}]"
        if isinstance(entry, dict):
            name = text(f"{field}.name", entry.get("name"), MAX_NAME_LENGTH)
            pictures.append((name, read_picture(f"{field}.data", entry.get("data"))))
        else:
            pictures.append(("", read_picture(field, entry)))
    return pictures


def _run(
    context: TaskContext, read: Callable[[Mapping[str, Any]], list[tuple[str, Image.Image]]]
) -> TaskResult:
    # 1. Everything that can be refused is refused before a model is loaded.
    request = parse_extras(context.parameters)
    sources = read(context.parameters)

    # 2. Models.
    steps = _steps(request, context)

    # 3. Pictures, one after the other.
    context.progress.start(len(sources), 1)
    pictures: list[Picture] = []
    for _name, source in sources:
        context.progress.check()
        said: dict[str, object] = {}
        picture = source
        for step in steps:
            picture = step(picture, said)
        context.progress.step(1, finished=len(pictures), batch=1)
        note = infotext.join(said)
        pictures.append(Picture(picture, str(source.info.get("parameters", "")), {"postprocessing": note}))
    return TaskResult(pictures, _info(context.parameters, sources, pictures))


def _steps(request: Extras, context: TaskContext) -> list[Step]:
    """What is done to every picture, in the WebUI's order: faces after the upscaling only if so asked."""
    upscaling = _upscaling(request, context)
    faces: list[Step] = []
    for kind, visibility in (
        ("GFPGAN", request.gfpgan_visibility),
        ("CodeFormer", request.codeformer_visibility),
    ):
        if visibility > 0:
            restorer = find_restorer(context, f"{kind.lower()}_visibility", kind)
            weight = request.codeformer_weight if kind == "CodeFormer" else None
            faces.append(_face_step(restorer, kind, visibility, weight, context.progress.check))
    ordered = [*upscaling, *faces] if request.upscale_first else [*faces, *upscaling]
    if not ordered:
        raise RequestFault(
            "upscaler_1 is None and no faces are to be restored, so nothing would change: name an upscaler"
        )
    return ordered


def _face_step(
    restorer: FaceRestorer, kind: str, visibility: float, weight: float | None, check: Callable[[], None]
) -> Step:
    def restore(picture: Image.Image, said: dict[str, object]) -> Image.Image:
        said[f"{kind} visibility"] = exact(visibility)
        if weight is not None:
            said[f"{kind} weight"] = exact(weight)
        restored = restorer.restore(picture, weight, check)
        return restored if visibility >= 1 else Image.blend(picture, restored, visibility)

    return restore


def _upscaling(request: Extras, context: TaskContext) -> list[Step]:
    first = find_upscaler(context, "upscaler_1", request.upscaler_1)
    second = find_upscaler(context, "upscaler_2", request.upscaler_2)
    if first is None:
        return []
    check = context.progress.check

    def enlarge(picture: Image.Image, said: dict[str, object]) -> Image.Image:
        """``ScriptPostprocessingUpscale.process`` in the WebUI's scripts/postprocessing_upscale.py."""
        result = _enlarge(request, picture, first, said, check)
        said["Postprocess upscaler"] = first.name
        if second is not None and request.extras_upscaler_2_visibility > 0:
            other = _enlarge(request, picture, second, said, check)
            result = Image.blend(result, other, request.extras_upscaler_2_visibility)
            said["Postprocess upscaler 2"] = second.name
        return result

    return [enlarge]


def _enlarge(
    request: Extras,
    picture: Image.Image,
    upscaler: Upscaler,
    said: dict[str, object],
    check: Callable[[], None],
) -> Image.Image:
    if request.resize_mode == BY_FACTOR:
        said["Postprocess upscale by"] = exact(request.upscaling_resize)
        return upscale_by(picture, request.upscaling_resize, upscaler, check)
    width, height = request.upscaling_resize_w, request.upscaling_resize_h
    said["Postprocess upscale to"] = f"{width}x{height}"
    factor = max(width / picture.width, height / picture.height)
    size = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
    enlarged = upscale_to(picture, size, factor, upscaler, check)
    if not request.upscaling_crop:
        return enlarged
    cropped = Image.new(enlarged.mode, (width, height))
    cropped.paste(enlarged, (width // 2 - enlarged.width // 2, height // 2 - enlarged.height // 2))
    said["Postprocess crop to"] = f"{width}x{height}"
    return cropped


def _info(
    parameters: Mapping[str, Any], sources: list[tuple[str, Image.Image]], pictures: list[Picture]
) -> dict[str, Any]:
    notes = [picture.texts["postprocessing"] for picture in pictures]
    return {
        "html_info": f"<p>{notes[0]}</p>",
        "postprocessing": notes,
        "infotexts": [picture.infotext for picture in pictures],
        "names": [name for name, _ in sources],
        "sizes": [list(picture.image.size) for picture in pictures],
        "unsupported": [key[:MAX_NAME_LENGTH] for key in parameters if key not in KNOWN][:MAX_NAME_LENGTH],
    }
