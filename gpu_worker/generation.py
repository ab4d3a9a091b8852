"""Makes a batch of pictures with one pipeline: the only place where the denoising loop is driven."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from PIL import Image

from gpu_worker import noise, vae_tiles
from gpu_worker.architecture import Family
from gpu_worker.conditioning import Conditioning
from gpu_worker.denoising import Guidance, Hooks, Step, denoise
from gpu_worker.device import is_lost_device, is_out_of_memory
from gpu_worker.errors import Dropped, JobFault, MachineFault, RequestFault
from gpu_worker.hypernetworks import attached
from gpu_worker.loading import Vae
from gpu_worker.pipelines import LoadedCheckpoint
from gpu_worker.plan import ImageRequest, Plan
from gpu_worker.prompt_encoding import encode_prompts
from gpu_worker.samplers import make_scheduler

log = logging.getLogger(__name__)

# Decoding takes far more memory than denoising: so many pixels at once.
DECODED_PIXELS = 1024 * 1024
REASON_LENGTH = 200


# Called after every evaluation of the model with the steps done and a way to look at the latents.
OnStep = Callable[[Step], None]


@dataclass(frozen=True, slots=True)
class Canvas:
    """What a task may make its start from: `noise` is (pictures, channels, height / 8, width / 8) in fp32.

    `requests` may be only some of those given to `generate`: a batch that does not fit is halved.
    `scheduler` has its timesteps set.
    """

    checkpoint: LoadedCheckpoint
    vae: Vae
    requests: Sequence[ImageRequest]
    plan: Plan
    scheduler: Any
    noise: torch.Tensor
    conditioning: Conditioning


@dataclass(frozen=True, slots=True)
class Start:
    """Where denoising begins: `latents` as noisy as `step` of the plan's steps wants them."""

    latents: torch.Tensor
    step: int = 0
    hooks: Hooks = field(default_factory=Hooks)


def from_noise(canvas: Canvas) -> Start:
    """The start of a picture that is made from text alone."""
    return Start(canvas.noise * canvas.scheduler.init_noise_sigma)


def generate(
    checkpoint: LoadedCheckpoint,
    vae: Vae,
    requests: Sequence[ImageRequest],
    plan: Plan,
    on_step: OnStep = lambda _step: None,
    begin: Callable[[Canvas], Start] = from_noise,
) -> list[Image.Image]:
    """Pictures of `plan.width` x `plan.height` pixels, one for each request, in their order.

    A batch that does not fit into memory is halved until it does. `on_step` may raise `Dropped` to stop.
    Raises `RequestFault` when a single picture does not fit or the model makes no numbers, `MachineFault` for
    a lost GPU.
    """

    def part(some: Sequence[ImageRequest]) -> list[Image.Image]:
        latents = sample(checkpoint, vae, some, plan, on_step, begin)
        return decode(checkpoint, vae, latents)

    return in_halves(part, requests, plan)


def in_halves(
    make: Callable[[Sequence[ImageRequest]], list[Any]], requests: Sequence[ImageRequest], plan: Plan
) -> list[Any]:
    """What `make` returns for all requests, called with fewer at a time when memory does not suffice."""
    try:
        with torch.inference_mode():
            return make(requests)
    except (Dropped, JobFault):
        raise
    except Exception as error:
        if is_lost_device(error):
            raise MachineFault("the GPU of the worker failed") from error
        if not is_out_of_memory(error):
            raise _as_fault(error) from error
    _free_memory()
    if len(requests) == 1:
        raise RequestFault(
            f"a picture of {plan.width}x{plan.height} pixels does not fit into this worker's memory; ask "
            "for a smaller one"
        )
    half = len(requests) // 2
    log.warning("out of memory, the batch is halved", extra={"batch": len(requests)})
    return in_halves(make, requests[:half], plan) + in_halves(make, requests[half:], plan)


def sample(
    checkpoint: LoadedCheckpoint,
    vae: Vae,
    requests: Sequence[ImageRequest],
    plan: Plan,
    on_step: OnStep,
    begin: Callable[[Canvas], Start] = from_noise,
) -> torch.Tensor:
    """Finished latents (requests, channels, height / 8, width / 8)."""
    # 1. A fresh scheduler: they keep state between steps.
    unet = checkpoint.pipeline.unet
    is_xl = checkpoint.family is Family.SDXL
    base = checkpoint.description.components["scheduler"]
    scheduler = make_scheduler(plan.sampling, base, plan.options, is_xl)
    scheduler.set_timesteps(plan.steps, device=unet.device)

    # 2. Networks, texts and noise; the noise comes from the CPU, so that a seed makes the same picture
    # everywhere.
    checkpoint.loras.apply(checkpoint.pipeline, checkpoint.name, plan.networks.loras)
    conditioning = encode_prompts(checkpoint, requests, plan)
    generators = [noise.generator(request.seed) for request in requests]
    scale = vae_tiles.scale_of(vae)
    shape = (vae.config.latent_channels, plan.height // scale, plan.width // scale)
    pairs = zip(requests, generators, strict=True)
    drawn = [noise.first(shape, one.seed, generator, one.variation) for one, generator in pairs]
    initial = torch.stack(drawn).to(unet.device)
    if plan.options.seed_delta:
        generators = [noise.generator(one.seed + plan.options.seed_delta) for one in requests]

    # 3. Denoise.
    start = begin(Canvas(checkpoint, vae, requests, plan, scheduler, initial, conditioning))
    with attached(unet, checkpoint.name, plan.networks.hypernetworks):
        return denoise(
            unet,
            scheduler,
            start.latents,
            conditioning,
            _guidance(plan),
            generators,
            steps=plan.steps,
            start=start.step,
            options={"eta": plan.options.eta or 0.0},
            hooks=replace(start.hooks, on_step=start.hooks.on_step or on_step),
        )


def _guidance(plan: Plan) -> Guidance:
    options = plan.options
    return Guidance(plan.cfg_scale, options.s_min_uncond, options.s_min_uncond_all, options.skip_early_cond)


def decode(checkpoint: LoadedCheckpoint, vae: Vae, latents: torch.Tensor) -> list[Image.Image]:
    """Pictures of finished latents; raises `RequestFault` when they hold what is no number."""
    if not bool(torch.isfinite(latents).all()):
        raise RequestFault(
            f"checkpoint {checkpoint.name} made values that are not numbers: it is damaged or needs other "
            "parameters"
        )
    processor = checkpoint.pipeline.image_processor
    pixels = latents.shape[-1] * latents.shape[-2] * vae_tiles.scale_of(vae) ** 2
    images: list[Image.Image] = []
    for part in latents.split(max(1, DECODED_PIXELS // pixels)):
        scaled = part.to(vae.dtype) / vae.config.scaling_factor
        images += processor.postprocess(vae_tiles.decode(vae, scaled), output_type="pil")
    return images


def _as_fault(error: Exception) -> Exception:
    """A ValueError is how diffusers refuses parameters; the rest is unexpected and goes up as it is."""
    if isinstance(error, ValueError):
        return RequestFault(f"the parameters do not work together: {str(error)[:REASON_LENGTH]}")
    return error


def _free_memory() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
