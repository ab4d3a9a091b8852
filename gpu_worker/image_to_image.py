"""Pictures from pictures: made noisy and drawn anew, all of them or where a mask says."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from PIL import Image

from gpu_worker import inpainting
from gpu_worker.denoising import Hooks
from gpu_worker.generation import Canvas, OnStep, Start, generate
from gpu_worker.image_parameters import ImageToImage
from gpu_worker.inpainting import Prepared
from gpu_worker.latents import encode, inpainting_channels, resized
from gpu_worker.loading import Vae
from gpu_worker.pipelines import LoadedCheckpoint
from gpu_worker.plan import ImageRequest, Plan
from gpu_worker.starts import Wrap, from_latents, is_inpainting, keep


@dataclass(frozen=True, slots=True)
class FromPictures:
    """Makes pictures out of prepared ones; picture i of a batch starts from prepared picture i."""

    request: ImageToImage
    prepared: Prepared
    start: int
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
        places = {id(request): place for place, request in enumerate(requests)}
        begin = partial(self.begin, places)
        made = generate(checkpoint, vae, requests, plan, on_step, self.wrap(begin))
        return [self.prepared.finished(picture, place) for place, picture in enumerate(made)]

    def begin(self, places: Mapping[int, int], canvas: Canvas) -> Start:
        """The noisy latents of the canvas's pictures, and the hooks that keep what the mask leaves."""
        pictures = self.prepared.pictures
        chosen = [places[id(request)] % len(pictures) for request in canvas.requests]
        shape = canvas.noise.shape[-2:]
        # 1. Each picture is encoded once, however many are made of it.
        encoded = {
            place: resized(encode(canvas.vae, [pictures[place]]).to(canvas.noise), *shape)
            for place in set(chosen)
        }
        clean = torch.cat([encoded[place] for place in chosen])
        noise = canvas.noise * self.request.noise_multiplier

        # 2. The mask.
        blend, mask = None, self.request.mask
        if self.prepared.mask is not None and mask is not None:
            new = inpainting.latent_mask(self.prepared.mask, clean, mask.is_rounded)
            clean = inpainting.filled(clean, canvas.noise, new, mask.fill)
            blend = inpainting.keeping(clean, noise, new)

        # 3. The noise of the step where the work begins.
        hooks = Hooks(blend=blend, extra_channels=self._channels(canvas, chosen))
        return from_latents(canvas, clean, noise, self.start, hooks)

    def _channels(self, canvas: Canvas, chosen: Sequence[int]) -> torch.Tensor | None:
        if not is_inpainting(canvas):
            return None
        size = (canvas.plan.width, canvas.plan.height)
        sources = [self.prepared.pictures[place].resize(size) for place in chosen]
        mask = None
        if self.prepared.mask is not None:
            array = np.asarray(self.prepared.mask, dtype=np.float32) / 255
            mask = torch.from_numpy(array.copy())[None, None]
        height, width = canvas.noise.shape[-2:]
        return inpainting_channels(canvas.vae, sources, mask, (height, width))
