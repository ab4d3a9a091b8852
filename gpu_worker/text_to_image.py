"""The tasks txt2img and img2img: from a request body of the WebUI to pictures with infotext."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import PurePosixPath
from typing import Any

from PIL import Image

from gpu_worker import VERSION, infotext, xyz_plot
from gpu_worker.architecture import Family
from gpu_worker.errors import RequestFault
from gpu_worker.hires_parameters import with_first_phase
from gpu_worker.infotext_request import with_infotext
from gpu_worker.jobs import Job, ModelFile
from gpu_worker.limits import SIZE_MULTIPLE
from gpu_worker.making import Making, from_pictures, from_words
from gpu_worker.networks import Networks
from gpu_worker.noise import Variation
from gpu_worker.noise import fields as noise_fields
from gpu_worker.parameters import AUTOMATIC_VAE, OWN_VAE, TextToImage, parse_text_to_image
from gpu_worker.pipelines import LoadedCheckpoint, LoadedVae
from gpu_worker.plan import ImageRequest, Plan
from gpu_worker.safety import SafetyFilter, filtered
from gpu_worker.sampler_options import fields as option_fields
from gpu_worker.samplers import SAMPLERS
from gpu_worker.styles import Styles
from gpu_worker.tasks import Picture, TaskContext, TaskResult
from gpu_worker.together import PictureJob, make_together
from gpu_worker.words import Words, fields_of, read_words

CHECKPOINT_TYPE = "Stable-diffusion"
VAE_TYPE = "VAE"


class PictureTask:
    """A task that makes pictures, of one job or of several at once; `choose_making` is its own part."""

    def __init__(self, choose_making: Callable[[TaskContext, TextToImage], Making]) -> None:
        self._choose_making = choose_making

    def __call__(self, context: TaskContext) -> TaskResult:
        """Makes one job's pictures; raises `RequestFault`, `Passing`, `MachineFault` or `Dropped`."""
        work = self.prepare(context)
        if not isinstance(work, PictureJob):
            return work()
        most_pixels = context.memory.device.batch_pixels
        ((_, outcome),) = make_together([work], most_pixels)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def prepare(self, context: TaskContext) -> PictureJob | Callable[[], TaskResult]:
        """Refuses everything that can be refused before a checkpoint is loaded: raises `RequestFault`.

        What a script makes of a request is no job of pictures that could be made with others'.
        """
        if xyz_plot.is_plot(context.parameters):
            return partial(xyz_plot.run, context, self)
        context = replace(context, parameters=with_first_phase(with_infotext(context.parameters)))
        request = parse_text_to_image(context.parameters, context.job.seed, context.job.task_type)
        request = _styled(request, context.styles)
        words = read_words(context, request.prompt, request.negative_prompt)
        making = self._choose_making(context, request)
        return PictureJob(
            context=context,
            checkpoint=choose_checkpoint(context.job, request.checkpoint),
            vae=choose_vae(context.job, request.vae),
            plan=plan_of(request, words.networks),
            making=making,
            batches=[making.placed(batch) for batch in _batches(request, words)],
            describe=partial(_described, request, words, context.styles, making, context.safety),
        )


def _described(
    request: TextToImage,
    words: Words,
    styles: Styles,
    making: Making,
    safety: SafetyFilter | None,
    checkpoint: LoadedCheckpoint,
    vae: LoadedVae | None,
    images: Sequence[Image.Image],
) -> TaskResult:
    """The pictures with what they say about themselves."""
    fields = {**making.fields, **fields_of(words.networks, making.networks)}
    comments = [*_comments(request, words, checkpoint, styles), *making.comments]
    making = replace(making, fields=fields, comments=tuple(comments))
    texts = [
        _infotext(request, seed, variation, checkpoint, vae, making.fields)
        for seed, variation in zip(request.seeds, request.variations, strict=True)
    ]
    pictures = [Picture(image, text) for image, text in zip(images, texts, strict=True)]
    pictures += [Picture(image, "") for image in making.more_pictures()]
    return filtered(safety, TaskResult(pictures, _info(request, checkpoint, vae, texts, making)))


def _styled(request: TextToImage, styles: Styles) -> TextToImage:
    prompt, negative = styles.apply(request.prompt, request.negative_prompt, request.styles)
    return replace(request, prompt=prompt, negative_prompt=negative)


def _comments(
    request: TextToImage, words: Words, checkpoint: LoadedCheckpoint, styles: Styles
) -> Iterator[str]:
    """Sentences about what had no effect."""
    yield from words.comments
    for name in styles.missing(request.styles):
        yield f"style {name[:80]!r} had no effect: the worker has none of this name"
    if request.clip_skip > 1 and checkpoint.family is not Family.SD1 and not request.clip_skip_xl:
        yield (
            "CLIP_stop_at_last_layers had no effect: it is for SD 1.x checkpoints, and with sdxl_clip_l_skip "
            "for the first text encoder of SDXL"
        )


def plan_of(request: TextToImage, networks: Networks) -> Plan:
    """What decides whether two jobs on one checkpoint and VAE may share a batch: equal plans may."""
    return Plan(
        sampling=request.sampling,
        steps=request.steps,
        cfg_scale=request.cfg_scale,
        width=request.width,
        height=request.height,
        options=request.options,
        clip_skip=request.clip_skip,
        clip_skip_xl=request.clip_skip_xl,
        networks=networks,
    )


def choose_checkpoint(job: Job, wanted: str | None) -> ModelFile:
    """The job's checkpoint; `wanted` may name it as the WebUI does ("name [hash]", ending or not)."""
    files = job.of_type(CHECKPOINT_TYPE)
    if not files:
        raise RequestFault(f"models.{CHECKPOINT_TYPE} names no checkpoint: one is needed")
    return _named(files, wanted, "sd_model_checkpoint", CHECKPOINT_TYPE) if wanted else files[0]


def choose_vae(job: Job, wanted: str | None) -> ModelFile | None:
    """The VAE that is `wanted`, else the job's first, or None for the checkpoint's own."""
    unnamed = AUTOMATIC_VAE | {OWN_VAE}
    files = [file for file in job.of_type(VAE_TYPE) if file.name.casefold() not in unnamed]
    if wanted == OWN_VAE:
        return None
    if wanted:
        return _named(files, wanted, "sd_vae", VAE_TYPE)
    return files[0] if files else None


def _named(files: Sequence[ModelFile], wanted: str, field: str, model_type: str) -> ModelFile:
    name = wanted.split(" [")[0].strip()
    for file in files:
        if name in (file.name, _stem(file.name)):
            return file
    raise RequestFault(
        f"override_settings.{field} {wanted[:80]!r} is not among the job's models.{model_type}"
    )


def _batches(request: TextToImage, words: Words) -> list[list[ImageRequest]]:
    requests = [
        ImageRequest(words.prompt, words.negative_prompt, seed, variation)
        for seed, variation in zip(request.seeds, request.variations, strict=True)
    ]
    size = request.batch_size
    return [requests[start : start + size] for start in range(0, len(requests), size)]


def _stem(name: str) -> str:
    return PurePosixPath(name).stem


def _infotext(
    request: TextToImage,
    seed: int,
    variation: Variation,
    checkpoint: LoadedCheckpoint,
    vae: LoadedVae | None,
    more: Mapping[str, object],
) -> str:
    sampler = SAMPLERS[request.sampling.sampler]
    fields: dict[str, object] = {
        "Steps": request.steps,
        "Sampler": request.sampling.sampler,
        "Schedule type": request.sampling.asked_schedule,
        "CFG scale": infotext.exact(request.cfg_scale),
        "Seed": seed,
        "Size": f"{request.width}x{request.height}",
        "Model hash": checkpoint.short_hash,
        "Model": _stem(checkpoint.name),
        "VAE hash": vae.short_hash if vae else None,
        "VAE": vae.name if vae else None,
        **option_fields(request.options, sampler.eta, sampler.has_churn),
        **noise_fields(variation),
        "Clip skip": request.clip_skip if request.clip_skip > 1 else None,
        "Clip skip SDXL": "True" if request.clip_skip_xl else None,
        # The noise is drawn on the CPU, which the WebUI must be told to do too.
        "RNG": "CPU",
        **more,
    }
    return infotext.write(request.prompt, request.negative_prompt, fields)


def _info(
    request: TextToImage,
    checkpoint: LoadedCheckpoint,
    vae: LoadedVae | None,
    texts: list[str],
    making: Making,
) -> dict[str, Any]:
    """The WebUI's ``Processed.js()``, with what had no effect under ``unsupported``."""
    count = request.image_count
    return {
        "prompt": request.prompt,
        "all_prompts": [request.prompt] * count,
        "negative_prompt": request.negative_prompt,
        "all_negative_prompts": [request.negative_prompt] * count,
        "seed": request.seed,
        "all_seeds": request.seeds,
        "subseed": request.subseed,
        "all_subseeds": [request.subseed + position for position in range(count)],
        "subseed_strength": request.subseed_strength,
        "seed_resize_from_w": request.seed_size[1] * SIZE_MULTIPLE if request.seed_size else -1,
        "seed_resize_from_h": request.seed_size[0] * SIZE_MULTIPLE if request.seed_size else -1,
        "width": request.width,
        "height": request.height,
        "sampler_name": request.sampling.sampler,
        "scheduler": request.sampling.asked_schedule,
        "cfg_scale": request.cfg_scale,
        "steps": request.steps,
        "batch_size": request.batch_size,
        "n_iter": request.n_iter,
        "restore_faces": False,
        "sd_model_name": _stem(checkpoint.name),
        "sd_model_hash": checkpoint.short_hash,
        "sd_vae_name": vae.name if vae else None,
        "sd_vae_hash": vae.short_hash if vae else None,
        "denoising_strength": None,
        "extra_generation_params": {
            "Schedule type": request.sampling.asked_schedule,
            **{name: value for name, value in making.fields.items() if value is not None},
        },
        "index_of_first_image": 0,
        "infotexts": texts,
        "styles": list(request.styles),
        "job_timestamp": time.strftime("%Y%m%d%H%M%S", time.gmtime()),
        "clip_skip": request.clip_skip,
        "version": f"sdfleet {VERSION}",
        "unsupported": list(request.unsupported),
        "comments": list(making.comments),
        **making.info,
    }


run = PictureTask(from_words)
run_from_pictures = PictureTask(from_pictures)
