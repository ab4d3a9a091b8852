"""Hires fix: a picture is made small, enlarged, made noisy again and finished in its final size."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from PIL import Image

from gpu_worker.denoising import Hooks, Step
from gpu_worker.generation import Canvas, OnStep, Start, decode, in_halves, sample
from gpu_worker.hires_parameters import LATENT_MODES, Hires
from gpu_worker.latents import encode, resized
from gpu_worker.loading import Vae
from gpu_worker.pipelines import LoadedCheckpoint
from gpu_worker.plan import ImageRequest, Plan
from gpu_worker.starts import Wrap, blank_channels, from_latents, from_text, steps_for
from gpu_worker.upscaling import Upscaler, upscale_to
from gpu_worker.vae_tiles import scale_of
from gpu_worker.words import Words


@dataclass(frozen=True, slots=True)
class TwoPasses:
    """Makes pictures in two passes; `wrap` adds to both what other wishes need (ControlNets).

    `words` are those of the second pass where it has its own.
    """

    hires: Hires
    words: Words | None
    upscaler: Upscaler | None
    wrap: Wrap
    wrap_second: Wrap
    check: Callable[[], None]

    def make(
        self,
        checkpoint: LoadedCheckpoint,
        vae: Vae,
        requests: Sequence[ImageRequest],
        plan: Plan,
        on_step: OnStep,
    ) -> list[Image.Image]:
        """The finished pictures of one batch, in their final size."""
        second = self.second_plan(plan)

        def later(step: Step) -> None:
            on_step(replace(step, done=step.done + plan.steps))

        def part(some: Sequence[ImageRequest]) -> list[Image.Image]:
            small = sample(checkpoint, vae, some, plan, on_step, self.wrap(from_text))
            clean = self._enlarged(checkpoint, vae, small)
            if self.hires.strength == 0:
                return decode(checkpoint, vae, clean)
            again = [self._later(one) for one in some]

            def begin(canvas: Canvas) -> Start:
                hooks = Hooks(extra_channels=blank_channels(canvas))
                return from_latents(canvas, clean, canvas.noise, second.steps - self.hires.steps, hooks)

            return decode(
                checkpoint, vae, sample(checkpoint, vae, again, second, later, self.wrap_second(begin))
            )

        return in_halves(part, requests, second)

    def second_plan(self, plan: Plan) -> Plan:
        """The plan of the second pass, whose last steps alone are done."""
        hires = self.hires
        return replace(
            plan,
            sampling=hires.sampling,
            steps=max(1, steps_for(hires.steps, hires.strength)),
            cfg_scale=hires.cfg_scale,
            width=hires.size[0],
            height=hires.size[1],
            networks=self.words.networks if self.words else plan.networks,
            prompt_steps=hires.steps,
            steps_before=plan.steps,
        )

    def _later(self, one: ImageRequest) -> ImageRequest:
        """The picture with the words of the second pass."""
        if self.words is None:
            return one
        return replace(
            one,
            prompt=self.words.prompt if self.hires.prompt else one.prompt,
            negative_prompt=self.words.negative_prompt if self.hires.negative_prompt else one.negative_prompt,
        )

    def _enlarged(self, checkpoint: LoadedCheckpoint, vae: Vae, small: torch.Tensor) -> torch.Tensor:
        """``sample_hr_pass`` in modules/processing.py of the WebUI, up to the second sampling."""
        width, height = self.hires.enlarged
        scale = scale_of(vae)
        if self.upscaler is None:
            mode, antialias = LATENT_MODES[self.hires.upscaler]
            options = {"antialias": antialias} if antialias else {}
            latents = resized(small, height // scale, width // scale, mode, **options)
        else:
            factor = max(width * 1.0 / (small.shape[-1] * scale), height / (small.shape[-2] * scale))
            pictures = [
                upscale_to(picture, (width, height), factor, self.upscaler, self.check)
                for picture in decode(checkpoint, vae, small)
            ]
            latents = encode(vae, pictures).to(small)
        return _middle(latents, self.hires.size[0] // scale, self.hires.size[1] // scale)


def _middle(latents: torch.Tensor, width: int, height: int) -> torch.Tensor:
    top, left = (latents.shape[-2] - height) // 2, (latents.shape[-1] - width) // 2
    return latents[..., top : top + height, left : left + width]
