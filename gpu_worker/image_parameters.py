"""What an img2img request says beyond txt2img: its pictures, its mask and how both are used, checked."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image

from gpu_worker.errors import RequestFault
from gpu_worker.images import flatten, read_picture, read_pictures
from gpu_worker.limits import flag, number, whole
from gpu_worker.masks import binary_mask

FILL, ORIGINAL, LATENT_NOISE, LATENT_NOTHING = range(4)
MASKED_CONTENT = {FILL: "fill", LATENT_NOISE: "latent noise", LATENT_NOTHING: "latent nothing"}
# Those keys that only img2img knows.
KNOWN = frozenset(
    {
        *("init_images", "mask", "latent_mask", "mask_blur", "mask_blur_x", "mask_blur_y", "mask_round"),
        *("mask_invert", "inpainting_mask_invert", "inpainting_fill", "inpaint_full_res"),
        *("inpaint_full_res_padding", "initial_noise_multiplier", "resize_mode", "image_cfg_scale"),
        *("denoising_strength", "include_init_images"),
    }
)


@dataclass(frozen=True, slots=True)
class Mask:
    """A mask of mode ``L``, white where something new is drawn, before it is blurred and resized."""

    picture: Image.Image
    blur_x: float
    blur_y: float
    is_inverted: bool
    is_rounded: bool
    fill: int
    only_masked: bool
    padding: int


@dataclass(frozen=True, slots=True)
class ImageToImage:
    """The checked part of an img2img request; `pictures` are RGB, in the sizes they were sent in."""

    pictures: tuple[Image.Image, ...]
    mask: Mask | None
    denoising_strength: float
    resize_mode: int
    noise_multiplier: float
    comments: tuple[str, ...] = ()


def parse_image_to_image(document: Mapping[str, Any], most: int) -> ImageToImage:
    """Reads one to `most` pictures and the mask; raises `RequestFault` naming the field."""
    if document.get("latent_mask") is not None:
        raise RequestFault("latent_mask is not supported, and would change the picture: use mask")
    pictures = read_pictures("init_images", document.get("init_images"), most)
    return ImageToImage(
        pictures=tuple(flatten(picture) for picture in pictures),
        mask=_mask(document),
        denoising_strength=number("denoising_strength", document.get("denoising_strength")),
        resize_mode=whole("img2img.resize_mode", document.get("resize_mode")),
        noise_multiplier=number("initial_noise_multiplier", document.get("initial_noise_multiplier")),
        comments=_comments(document),
    )


def _mask(document: Mapping[str, Any]) -> Mask | None:
    value = document.get("mask")
    if value is None or value == "":
        return None
    is_rounded = flag("mask_round", document.get("mask_round"), default=True)
    both = document.get("mask_blur")
    blurs = [
        number("mask_blur", both if both is not None else document.get(name))
        for name in ("mask_blur_x", "mask_blur_y")
    ]
    inverted = document.get("inpainting_mask_invert", document.get("mask_invert"))
    return Mask(
        picture=binary_mask(read_picture("mask", value), is_rounded and max(blurs) == 0),
        blur_x=blurs[0],
        blur_y=blurs[1],
        is_inverted=flag("inpainting_mask_invert", inverted),
        is_rounded=is_rounded,
        fill=whole("inpainting_fill", document.get("inpainting_fill")),
        only_masked=flag("inpaint_full_res", document.get("inpaint_full_res"), default=True),
        padding=whole("inpaint_full_res_padding", document.get("inpaint_full_res_padding")),
    )


def _comments(document: Mapping[str, Any]) -> tuple[str, ...]:
    """``image_cfg_scale`` is for checkpoints that edit by instruction; with all others it has no effect."""
    scale = document.get("image_cfg_scale")
    if scale is None:
        return ()
    number("image_cfg_scale", scale)
    return ("image_cfg_scale has no effect: the checkpoint is none of those that edit by instruction",)
