"""What differs between ways to make the pictures of a request: from text, in two passes, from pictures."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import cycle
from typing import Any, Protocol

from PIL import Image

from gpu_worker import inpainting
from gpu_worker.controlnet import ControlNets, find_controlnets
from gpu_worker.faces import FACE_TYPE, first_restorer
from gpu_worker.generation import OnStep, generate
from gpu_worker.hires import TwoPasses
from gpu_worker.hires_parameters import Hires, parse_hires
from gpu_worker.image_parameters import parse_image_to_image
from gpu_worker.image_to_image import FromPictures, Source
from gpu_worker.infotext import exact
from gpu_worker.jobs import ModelFile
from gpu_worker.limits import MAX_NAME_LENGTH, flag, number, text
from gpu_worker.loading import Vae
from gpu_worker.networks import NO_NETWORKS, Networks
from gpu_worker.parameters import TextToImage
from gpu_worker.pipelines import LoadedCheckpoint
from gpu_worker.plan import ImageRequest, Plan
from gpu_worker.refiner import Refiner, find_refiner
from gpu_worker.starts import Wrap, first_step, from_text, keep
from gpu_worker.tasks import TaskContext
from gpu_worker.tiling import circular
from gpu_worker.upscaling import UPSCALER_TYPE, find_upscaler
from gpu_worker.words import Words, read_words


class Make(Protocol):
    """Makes the pictures of one batch; it may be called for one batch after the other."""

    def __call__(
        self,
        checkpoint: LoadedCheckpoint,
        vae: Vae,
        requests: Sequence[ImageRequest],
        plan: Plan,
        on_step: OnStep,
    ) -> list[Image.Image]:
        """Finished pictures, one for each request."""


@dataclass(frozen=True, slots=True)
class Making:
    """A way to make pictures: the `steps` that each takes, and what it adds to infotexts and ``info``.

    `key` names everything that `make` does by itself beside what checkpoint, requests and plan say: pictures
    of jobs with equal keys may be made by one call of either `make`. None: never with those of another job.
    `sources` are what pictures are made from, in turn; `size` is the final one where it is not the plan's.
    `files` are those of further models that are used beside the checkpoint, `networks` a second pass's;
    `more_pictures` are given after the others, once these are made.
    """

    make: Make
    steps: int
    key: Hashable | None = None
    sources: Sequence[Any] = ()
    size: tuple[int, int] | None = None
    fields: Mapping[str, object] = field(default_factory=dict)
    info: Mapping[str, Any] = field(default_factory=dict)
    comments: tuple[str, ...] = ()
    files: tuple[ModelFile, ...] = ()
    more_pictures: Callable[[], Sequence[Image.Image]] = tuple
    networks: Networks = NO_NETWORKS

    def placed(self, batch: Sequence[ImageRequest]) -> list[ImageRequest]:
        """A batch whose pictures know their sources."""
        if not self.sources:
            return list(batch)
        sources = cycle(self.sources)
        return [replace(request, source=next(sources)) for request in batch]


def from_words(context: TaskContext, request: TextToImage) -> Making:
    """txt2img, in two passes where hires fix is on; raises `RequestFault` before any checkpoint is loaded."""
    controlnets, refiner = find_controlnets(context), find_refiner(context)
    wrap: Wrap = controlnets.wrap if controlnets else keep
    wrap_second: Wrap = controlnets.wrap_second if controlnets else keep
    hires = parse_hires(context.parameters, request, context.styles)
    if hires is None:
        wrap = _both(wrap, refiner)
        making = Making(_one_pass(wrap), request.steps, "words" if wrap is keep else None)
    else:
        upscaler = None if hires.is_latent else find_upscaler(context, "hr_upscaler", hires.upscaler)
        # As the WebUI's setting hires_fix_refiner_pass has it unless it is changed.
        wrap_second = _both(wrap_second, refiner)
        words = _later_words(context, request, hires)
        networks = words.networks if words else NO_NETWORKS
        passes = TwoPasses(hires, words, upscaler, wrap, wrap_second, context.progress.check)
        second = hires.steps if hires.strength > 0 else 0
        info = {"denoising_strength": hires.strength}
        is_alone = wrap is not keep or wrap_second is not keep
        key = None if is_alone else ("hires", hires.key, networks, *_versions(context, UPSCALER_TYPE))
        making = Making(
            passes.make,
            request.steps + second,
            key,
            size=hires.size,
            fields=hires.fields,
            info=info,
            networks=networks,
        )
    return _finished(context, _with_models(making, controlnets, refiner))


def _later_words(context: TaskContext, request: TextToImage, hires: Hires) -> Words | None:
    """The second pass's words with their own networks, or None where they are the first's."""
    if not hires.prompt and not hires.negative_prompt:
        return None
    return read_words(
        context, hires.prompt or request.prompt, hires.negative_prompt or request.negative_prompt
    )


def from_pictures(context: TaskContext, request: TextToImage) -> Making:
    """img2img and inpainting; raises `RequestFault` before any checkpoint is loaded."""
    asked = parse_image_to_image(context.parameters, request.batch_size)
    prepared = inpainting.prepare(asked, request.width, request.height)
    start = first_step(request.steps, asked.denoising_strength)
    multiplier = asked.noise_multiplier
    fields = {
        "Denoising strength": exact(asked.denoising_strength),
        **inpainting.fields(asked),
        "Noise multiplier": exact(multiplier) if multiplier != 1 else None,
    }
    info = {"denoising_strength": asked.denoising_strength}
    controlnets, refiner = find_controlnets(context, prepared), find_refiner(context)
    wrap = _both(controlnets.wrap if controlnets else keep, refiner)
    making = Making(
        FromPictures(start, multiplier, wrap).make,
        request.steps - start,
        key=("pictures", start, multiplier) if wrap is keep else None,
        sources=[Source(prepared, place, asked.mask) for place in range(len(prepared.pictures))],
        fields=fields,
        info=info,
        comments=asked.comments,
    )
    return _finished(context, _with_models(making, controlnets, refiner))


def _both(wrap: Wrap, refiner: Refiner | None) -> Wrap:
    return wrap if refiner is None else lambda begin: refiner.wrap(wrap(begin))


def _with_models(making: Making, controlnets: ControlNets | None, refiner: Refiner | None) -> Making:
    """Adds what infotexts say of further models, and the maps of ControlNets."""
    if refiner is not None:
        making = replace(making, fields={**making.fields, **refiner.fields}, files=(refiner.file,))
    if controlnets is None:
        return making
    fields = {**making.fields, **controlnets.fields}
    files = (*making.files, *controlnets.files)
    return replace(making, fields=fields, files=files, more_pictures=controlnets.returned_maps)


def _one_pass(wrap: Wrap) -> Make:
    def make(
        checkpoint: LoadedCheckpoint,
        vae: Vae,
        requests: Sequence[ImageRequest],
        plan: Plan,
        on_step: OnStep,
    ) -> list[Image.Image]:
        return generate(checkpoint, vae, requests, plan, on_step, wrap(from_text))

    return make


def _finished(context: TaskContext, making: Making) -> Making:
    """Adds what the WebUI does round every way: seamless edges, and faces restored at the end."""
    is_tiled = flag("tiling", context.parameters.get("tiling"))
    restore = _restoring(context) if flag("restore_faces", context.parameters.get("restore_faces")) else None
    if not is_tiled and restore is None:
        return making

    def make(
        checkpoint: LoadedCheckpoint,
        vae: Vae,
        requests: Sequence[ImageRequest],
        plan: Plan,
        on_step: OnStep,
    ) -> list[Image.Image]:
        with circular(is_tiled, checkpoint.pipeline.unet, vae):
            pictures = making.make(checkpoint, vae, requests, plan, on_step)
        return [restore(picture) for picture in pictures] if restore else pictures

    key = None
    if making.key is not None:
        key = (
            making.key,
            is_tiled,
            restore and (restore.kind, restore.weight, *_versions(context, FACE_TYPE)),
        )
    fields = {
        **making.fields,
        "Tiling": "True" if is_tiled else None,
        "Face restoration": restore.kind if restore else None,
    }
    info = {**making.info, "restore_faces": restore is not None}
    return replace(making, make=make, key=key, fields=fields, info=info)


def _versions(context: TaskContext, model_type: str) -> tuple[str, ...]:
    """What tells the job's files of a type apart from another job's."""
    return tuple(file.version for file in context.job.of_type(model_type))


@dataclass(frozen=True, slots=True)
class _Restoring:
    kind: str
    weight: float
    work: Callable[[Image.Image], Image.Image]

    def __call__(self, picture: Image.Image) -> Image.Image:
        return self.work(picture)


def _restoring(context: TaskContext) -> _Restoring:
    settings = context.parameters.get("override_settings") or {}
    wanted = text("face_restoration_model", settings.get("face_restoration_model"), MAX_NAME_LENGTH)
    weight = number("code_former_weight", settings.get("code_former_weight"))
    # An infotext of the WebUI before 1.0 says True, and of others the model's name.
    restorer = first_restorer(context, "restore_faces", "" if wanted == "True" else wanted)
    check = context.progress.check
    return _Restoring(restorer.kind, weight, lambda picture: restorer.restore(picture, weight, check))
