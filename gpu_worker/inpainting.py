"""What a picture's mask means: what is drawn anew, what is laid back over it, and in which part of it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageOps

from gpu_worker import masks
from gpu_worker.denoising import Step
from gpu_worker.image_parameters import (
    LATENT_NOISE,
    LATENT_NOTHING,
    MASKED_CONTENT,
    ORIGINAL,
    ImageToImage,
    Mask,
)
from gpu_worker.infotext import exact
from gpu_worker.limits import LIMITS
from gpu_worker.resizing import FILL as FILL_UP
from gpu_worker.resizing import JUST_RESIZE, LATENT_UPSCALE, resize


@dataclass(frozen=True, slots=True)
class Prepared:
    """Pictures as they are encoded, all of one size, with their `mask` of that size.

    `kept` is laid over each result; `box` is where the result lies in it when only a part was drawn.
    """

    pictures: tuple[Image.Image, ...]
    mask: Image.Image | None = None
    kept: tuple[Image.Image, ...] = ()
    box: masks.Box | None = None

    def finished(self, made: Image.Image, place: int) -> Image.Image:
        """The result for the picture at `place`: outside of the mask it is that picture to the pixel."""
        if not self.kept:
            return made
        return masks.put_back(made, self.kept[place % len(self.kept)], self.box)


def prepare(request: ImageToImage, width: int, height: int) -> Prepared:
    """Resizes, crops and fills as ``StableDiffusionProcessingImg2Img.init`` in the WebUI does."""
    if request.mask is None:
        return Prepared(tuple(_resized(picture, request, width, height) for picture in request.pictures))
    soft = _soft(request.mask)
    if request.mask.only_masked:
        same = [picture.size == soft.size for picture in request.pictures]
        soft = soft if all(same) else soft.resize(request.pictures[0].size)
        box = masks.crop_region(soft, request.mask.padding, (width, height))
        if box is None:
            # Nothing is masked: the WebUI goes on as without a mask, so that everything is drawn anew.
            return Prepared(tuple(_resized(picture, request, width, height) for picture in request.pictures))
        whole = [
            picture.resize(soft.size) if picture.size != soft.size else picture
            for picture in request.pictures
        ]
        mask = resize(FILL_UP, soft.crop(box), width, height)
        kept = tuple(masks.overlay(picture, soft) for picture in whole)
        parts = [resize(FILL_UP, picture.crop(box), width, height) for picture in whole]
    else:
        box = None
        mask = resize(request.resize_mode, soft, width, height)
        parts = [resize(request.resize_mode, picture, width, height) for picture in request.pictures]
        kept = tuple(masks.overlay(part, masks.strengthen(mask)) for part in parts)
    if request.mask.fill != ORIGINAL:
        parts = [masks.fill(part, mask) for part in parts]
    return Prepared(tuple(parts), mask, kept, box)


def fields(request: ImageToImage) -> dict[str, object]:
    """What an infotext says of the mask, and of sizes that differ (the WebUI's says nothing of modes)."""
    mask, mode = request.mask, request.resize_mode or None
    if mask is None:
        return {"Resize mode": mode}
    return {
        "Resize mode": mode,
        "Mask mode": "Inpaint not masked" if mask.is_inverted else None,
        "Mask blur": exact(mask.blur_x) if mask.blur_x == mask.blur_y else None,
        "Mask blur x": exact(mask.blur_x) if mask.blur_x != mask.blur_y else None,
        "Mask blur y": exact(mask.blur_y) if mask.blur_x != mask.blur_y else None,
        "Inpaint area": "Only masked" if mask.only_masked else None,
        "Masked area padding": mask.padding if mask.only_masked else None,
        "Masked content": MASKED_CONTENT.get(mask.fill),
        "Mask round": None if mask.is_rounded else "False",
    }


def latent_mask(mask: Image.Image, latents: torch.Tensor, is_rounded: bool) -> torch.Tensor:
    """1 where latents are drawn anew, shape ``(1, 1, height, width)`` of the latents."""
    small = mask.resize((latents.shape[-1], latents.shape[-2]), Image.Resampling.BICUBIC)
    array = torch.from_numpy(np.asarray(small, dtype=np.float32) / 255)[None, None].to(latents.device)
    return array.round() if is_rounded else array


def filled(latents: torch.Tensor, noise: torch.Tensor, new: torch.Tensor, fill: int) -> torch.Tensor:
    """The clean latents with noise or nothing where they are drawn anew."""
    if fill == LATENT_NOISE:
        return latents * (1 - new) + noise * new
    return latents * (1 - new) if fill == LATENT_NOTHING else latents


def keeping(clean: torch.Tensor, noise: torch.Tensor, new: torch.Tensor) -> Callable[[Step], torch.Tensor]:
    """A hook that puts what is kept back after each step, as noisy as the step."""

    def blend(step: Step) -> torch.Tensor:
        return step.latents * new + step.level.noised(clean, noise) * (1 - new)

    return blend


def _soft(mask: Mask) -> Image.Image:
    picture = ImageOps.invert(mask.picture) if mask.is_inverted else mask.picture
    return masks.blur(picture, mask.blur_x, mask.blur_y)


def _resized(picture: Image.Image, request: ImageToImage, width: int, height: int) -> Image.Image:
    """Latents are resized in place of pictures where that is asked for, of pictures that can be encoded."""
    if request.resize_mode == LATENT_UPSCALE:
        factor = min(1.0, LIMITS["width"].maximum / max(picture.size))
        sides = (max(64, int(side * factor) // 8 * 8) for side in picture.size)
        return resize(JUST_RESIZE, picture, *sides)
    return resize(request.resize_mode, picture, width, height)
