"""Makes a batch of pictures with one pipeline: the only place where the denoising loop is driven."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from PIL import Image

from gpu_worker.architecture import Family
from gpu_worker.device import is_lost_device, is_out_of_memory
from gpu_worker.errors import Dropped, JobFault, MachineFault, RequestFault
from gpu_worker.loading import Vae
from gpu_worker.pipelines import LoadedCheckpoint
from gpu_worker.samplers import Sampling, make_scheduler

log = logging.getLogger(__name__)

# Decoding takes far more memory than denoising: so many pixels at once.
DECODED_PIXELS = 1024 * 1024
REASON_LENGTH = 200

# Called after every denoising step with the steps done, counted as the request counts them.
OnStep = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """One picture: its texts and the seed of its own noise, so that it does not depend on its neighbours."""

    prompt: str
    negative_prompt: str
    seed: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What all pictures of a batch share; requests of several jobs with equal plans may be batched."""

    sampling: Sampling
    steps: int
    cfg_scale: float
    width: int
    height: int
    eta: float = 0.0
    clip_skip: int = 1


def generate(
    checkpoint: LoadedCheckpoint,
    vae: Vae,
    requests: Sequence[ImageRequest],
    plan: Plan,
    on_step: OnStep = lambda _step: None,
) -> list[Image.Image]:
    """Pictures of `plan.width` x `plan.height` pixels, one for each request, in their order.

    A batch that does not fit into memory is halved until it does. `on_step` may raise `Dropped` to stop.
    Raises `RequestFault` when a single picture does not fit or the model makes no numbers, `MachineFault` for
    a lost GPU.
    """
    try:
        return _generate_at_once(checkpoint, vae, requests, plan, on_step)
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
    first = generate(checkpoint, vae, requests[:half], plan, on_step)
    return first + generate(checkpoint, vae, requests[half:], plan, on_step)


def _generate_at_once(
    checkpoint: LoadedCheckpoint,
    vae: Vae,
    requests: Sequence[ImageRequest],
    plan: Plan,
    on_step: OnStep,
) -> list[Image.Image]:
    # 1. A fresh scheduler: they keep state between steps.
    pipeline = checkpoint.pipeline
    pipeline.scheduler = make_scheduler(plan.sampling, checkpoint.description.components["scheduler"])

    # 2. The noise comes from the CPU, so that a seed makes the same picture on every machine.
    generators = [torch.Generator("cpu").manual_seed(request.seed) for request in requests]

    def after_step(
        pipe: object, index: int, _timestep: object, _tensors: dict[str, object]
    ) -> dict[str, object]:
        # Second-order samplers take about two evaluations for one step of the request.
        evaluations = pipe.num_timesteps  # type: ignore[attr-defined]
        on_step(max(1, (index + 1) * plan.steps // evaluations))
        return {}

    # 3. Denoise.
    with torch.inference_mode():
        latents = pipeline(
            prompt=[request.prompt for request in requests],
            negative_prompt=[request.negative_prompt for request in requests],
            num_inference_steps=plan.steps,
            guidance_scale=plan.cfg_scale,
            width=plan.width,
            height=plan.height,
            eta=plan.eta,
            clip_skip=_clip_skip(checkpoint, plan),
            generator=generators,
            output_type="latent",
            callback_on_step_end=after_step,
        ).images
        # 4. Decode.
        return _decode(checkpoint, vae, latents)


def _decode(checkpoint: LoadedCheckpoint, vae: Vae, latents: torch.Tensor) -> list[Image.Image]:
    if not bool(torch.isfinite(latents).all()):
        raise RequestFault(
            f"checkpoint {checkpoint.name} made values that are not numbers: it is damaged or needs other "
            "parameters"
        )
    processor = checkpoint.pipeline.image_processor
    scale = 2 ** (len(vae.config.block_out_channels) - 1)
    pixels = latents.shape[-1] * latents.shape[-2] * scale * scale
    images: list[Image.Image] = []
    for part in latents.split(max(1, DECODED_PIXELS // pixels)):
        decoded = vae.decode(part.to(vae.dtype) / vae.config.scaling_factor, return_dict=False)[0]
        images += processor.postprocess(decoded, output_type="pil")
    return images


def _clip_skip(checkpoint: LoadedCheckpoint, plan: Plan) -> int | None:
    """WebUI's 1 means the last layer, diffusers' None; SDXL always uses its last but one."""
    if plan.clip_skip == 1 or checkpoint.family is Family.SDXL:
        return None
    layers = checkpoint.description.components["text_encoder"]["num_hidden_layers"]
    if plan.clip_skip > layers:
        raise RequestFault(
            f"CLIP_stop_at_last_layers must be at most {layers} for checkpoint {checkpoint.name}, not "
            f"{plan.clip_skip}"
        )
    return plan.clip_skip - 1


def _as_fault(error: Exception) -> Exception:
    """A ValueError is how diffusers refuses parameters; the rest is unexpected and goes up as it is."""
    if isinstance(error, ValueError):
        return RequestFault(f"the parameters do not work together: {str(error)[:REASON_LENGTH]}")
    return error


def _free_memory() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
