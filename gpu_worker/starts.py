"""Where the denoising of a batch begins: with noise alone, or with clean latents made noisy."""

from collections.abc import Callable
from dataclasses import replace

import torch

from gpu_worker.denoising import Hooks
from gpu_worker.generation import Canvas, Start, from_noise
from gpu_worker.latents import INPAINTING_CHANNELS, inpainting_channels
from gpu_worker.noise_level import noise_level

MOST_STRENGTH = 0.999

# Makes a start of a batch, and adds to one what other wishes need (the residuals of ControlNets).
Begin = Callable[[Canvas], Start]
Wrap = Callable[[Begin], Begin]


def keep(begin: Begin) -> Begin:
    """Adds nothing."""
    return begin


def first_step(steps: int, strength: float) -> int:
    """How many of img2img's steps are left out; one is always done.

    ``setup_img2img_steps`` in modules/sd_samplers_common.py of the WebUI.
    """
    return steps - int(min(strength, MOST_STRENGTH) * steps) - 1


def steps_for(wanted: int, strength: float) -> int:
    """How many steps a schedule needs so that the `strength` of it is `wanted` steps (the same function)."""
    return int(wanted / min(strength, MOST_STRENGTH)) if strength > 0 else 0


def from_text(canvas: Canvas) -> Start:
    """The start of a picture that is made from text alone, with any checkpoint."""
    return replace(from_noise(canvas), hooks=Hooks(extra_channels=blank_channels(canvas)))


def from_latents(canvas: Canvas, clean: torch.Tensor, noise: torch.Tensor, step: int, hooks: Hooks) -> Start:
    """A start on the way: `clean` latents as noisy as the schedule is at `step`."""
    level = noise_level(canvas.scheduler, step * canvas.scheduler.order)
    return Start(level.noised(clean, noise), step, hooks=hooks)


def is_inpainting(canvas: Canvas) -> bool:
    """Whether the checkpoint looks at a mask and a masked picture beside the latents."""
    return canvas.checkpoint.description.architecture.in_channels == INPAINTING_CHANNELS


def blank_channels(canvas: Canvas) -> torch.Tensor | None:
    """What an inpainting checkpoint looks at when it makes a picture from text alone; None for others."""
    if not is_inpainting(canvas):
        return None
    height, width = canvas.noise.shape[-2:]
    return inpainting_channels(canvas.vae, [], None, (height, width)).expand(len(canvas.requests), -1, -1, -1)
