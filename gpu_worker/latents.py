"""Between pictures and latents: encoding, and the extra channels that inpainting checkpoints look at."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from gpu_worker import vae_tiles
from gpu_worker.loading import Vae

# Encoding takes as much memory as decoding: so many pixels at once.
ENCODED_PIXELS = 1024 * 1024
INPAINTING_CHANNELS = 9
GREY = 0.0


def encode(vae: Vae, pictures: Sequence[Image.Image]) -> torch.Tensor:
    """Clean latents (pictures, channels, height / 8, width / 8) in fp32 of RGB pictures of one size.

    The mean of the encoder's distribution, so that the same picture always means the same latents.
    """
    return _encode(vae, torch.stack([to_tensor(picture) for picture in pictures]))


def to_tensor(picture: Image.Image) -> torch.Tensor:
    """``(3, height, width)`` from -1 to 1."""
    array = np.asarray(picture.convert("RGB"), dtype=np.float32) / 127.5 - 1
    return torch.from_numpy(array.transpose(2, 0, 1).copy())


def resized(
    latents: torch.Tensor, height: int, width: int, mode: str = "bilinear", **options: bool
) -> torch.Tensor:
    """Latents in another size."""
    if latents.shape[-2:] == (height, width):
        return latents
    return functional.interpolate(latents, size=(height, width), mode=mode, **options)


def inpainting_channels(
    vae: Vae, pictures: Sequence[Image.Image], mask: torch.Tensor | None, size: tuple[int, int]
) -> torch.Tensor:
    """The five channels after the latents of an inpainting checkpoint: the mask, and the masked picture.

    `mask` is (1, 1, height, width) of the pictures, 1 where something new is drawn; None means all of it.
    ``inpainting_image_conditioning`` in modules/processing.py of the WebUI; without `pictures` it is its
    ``txt2img_image_conditioning``, which shows the model a grey picture. `size` is that of the latents.
    """
    height, width = size
    if not pictures:
        scale = vae_tiles.scale_of(vae)
        shown = torch.full((1, 3, height * scale, width * scale), GREY)
        new = torch.ones(1, 1, *size)
    else:
        shown = torch.stack([to_tensor(picture) for picture in pictures])
        hole = torch.ones(1, 1, *shown.shape[-2:]) if mask is None else mask.cpu().round()
        shown = shown * (1 - hole)
        new = functional.interpolate(hole, size=size)
    latents = _encode(vae, shown)
    return torch.cat([new.to(latents).expand(len(latents), -1, -1, -1), latents], dim=1)


def _encode(vae: Vae, pixels: torch.Tensor) -> torch.Tensor:
    room = max(1, ENCODED_PIXELS // (pixels.shape[-1] * pixels.shape[-2]))
    device = next(vae.parameters()).device
    with torch.inference_mode():
        parts = [
            vae_tiles.encode(vae, part.to(device, vae.dtype, memory_format=torch.channels_last)).float()
            for part in pixels.split(room)
        ]
    return torch.cat(parts) * vae.config.scaling_factor
