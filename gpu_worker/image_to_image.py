"""Pictures from pictures: made noisy and drawn anew, all of them or where a mask says."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from gpu_worker import inpainting
from gpu_worker.denoising import Hooks
from gpu_worker.generation import Canvas, OnStep, Start, generate
from gpu_worker.image_parameters import ORIGINAL, Mask
from gpu_worker.inpainting import Prepared
from gpu_worker.latents import encode, inpainting_channels, resized
from gpu_worker.loading import Vae
from gpu_worker.pipelines import LoadedCheckpoint
from gpu_worker.plan import ImageRequest, Plan
from gpu_worker.starts import Wrap, from_latents, is_inpainting, keep


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """What a picture is made from: the prepared picture at `place`, and how its mask is used."""

    prepared: Prepared
    place: int
    mask: Mask | None

    @property
    def picture(self) -> Image.Image:
        """What is encoded."""
        return self.prepared.pictures[self.place]


@dataclass(frozen=True, slots=True)
class FromPictures:
    """Makes pictures out of the `Source` of each request; the work begins at step `start`."""

    start: int
    noise_multiplier: float
    wrap: Wrap = keep

    def make(
        self,
        checkpoint: LoadedCheckpoint,
        vae: Vae,
        requests: Sequence[ImageRequest],
        plan: Plan,
        on_step: OnStep,
    ) -> list[Image.Image]:
        """The finished pictures of one batch, what is kept laid over them."""
        made = generate(checkpoint, vae, requests, plan, on_step, self.wrap(self.begin))
        sources: list[Source] = [request.source for request in requests]
        return [
            source.prepared.finished(picture, source.place)
            for source, picture in zip(sources, made, strict=True)
        ]

    def begin(self, canvas: Canvas) -> Start:
        """The noisy latents of the canvas's pictures, and the hooks that keep what their masks leave."""
        sources: list[Source] = [request.source for request in canvas.requests]
        shape = canvas.noise.shape[-2:]
        # 1. Each picture is encoded once, however many are made of it.
        encoded = {
            source: resized(encode(canvas.vae, [source.picture]).to(canvas.noise), *shape)
            for source in dict.fromkeys(sources)
        }
        clean = torch.cat([encoded[source] for source in sources])
        noise = canvas.noise * self.noise_multiplier

        # 2. The masks; a picture without one is drawn anew everywhere.
        blend = None
        if any(source.prepared.mask is not None for source in sources):
            new = torch.cat([_new(source, clean) for source in sources])
            fills = [
                inpainting.filled(*parts, source.mask.fill if source.mask else ORIGINAL)
                for source, parts in zip(sources, _each(clean, canvas.noise, new), strict=True)
            ]
            clean = torch.cat(fills)
            blend = inpainting.keeping(clean, noise, new)

        # 3. The noise of the step where the work begins.
        hooks = Hooks(blend=blend, extra_channels=_channels(canvas, sources))
        return from_latents(canvas, clean, noise, self.start, hooks)


def _each(
    clean: torch.Tensor, noise: torch.Tensor, new: torch.Tensor
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    return zip(clean.split(1), noise.split(1), new.split(1), strict=True)


def _new(source: Source, clean: torch.Tensor) -> torch.Tensor:
    """1 where one picture's latents are drawn anew."""
    if source.prepared.mask is None or source.mask is None:
        return torch.ones_like(clean[:1, :1])
    return inpainting.latent_mask(source.prepared.mask, clean, source.mask.is_rounded)


def _channels(canvas: Canvas, sources: Sequence[Source]) -> torch.Tensor | None:
    if not is_inpainting(canvas):
        return None
    height, width = canvas.noise.shape[-2:]
    shown = {}
    for source in dict.fromkeys(sources):
        picture = source.picture.resize((canvas.plan.width, canvas.plan.height))
        mask = None
        if source.prepared.mask is not None:
            array = np.asarray(source.prepared.mask, dtype=np.float32) / 255
            mask = torch.from_numpy(array.copy())[None, None]
        shown[source] = inpainting_channels(canvas.vae, [picture], mask, (height, width))
    return torch.cat([shown[source] for source in sources])
