"""Brings a training into memory: the checkpoint in the right precision, pictures as latents."""

import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from gpu_worker.device import Device
from gpu_worker.errors import RequestFault
from gpu_worker.loading import load_checkpoint
from gpu_worker.training.buckets import Bucket, fill, make_buckets, nearest
from gpu_worker.training.examples import Example
from gpu_worker.training.networks import Networks, prepare
from gpu_worker.training.settings import Settings

MOST_PIXELS = 100_000_000
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class Source:
    """A picture that is to be trained on."""

    name: str
    caption: str
    content: bytes
    is_class: bool = False


def load_networks(path: Path, name: str, settings: Settings, device: Device) -> Networks:
    """The checkpoint with what is going to learn; weights that learn are kept in 32 bits."""
    precise = device
    if not settings.use_lora or settings.mixed_precision == "no":
        precise = replace(device, dtype=torch.float32)
    elif device.is_cuda:
        precise = replace(device, dtype=DTYPES[settings.mixed_precision])
    pipeline, description = load_checkpoint(path, name, precise)
    torch.manual_seed(settings.seed)  # a LoRA begins with random numbers
    return prepare(pipeline, description.family, settings, dict(description.header.metadata))


def default_size(networks: Networks) -> tuple[int, int]:
    """The size that the checkpoint was trained at, (width, height)."""
    factor = 2 ** (len(networks.pipeline.vae.config.block_out_channels) - 1)
    side = int(networks.unet.config.sample_size) * factor
    return side, side


class Encoder:
    """Turns pictures into examples."""

    def __init__(self, networks: Networks, size: tuple[int, int]) -> None:
        settings = networks.settings
        width, height = size
        self._networks = networks
        self._flip = settings.flip
        self._buckets = [Bucket(width, height)]
        if settings.bucketing:
            self._buckets = make_buckets(
                width, height, settings.bucket_step, settings.smallest_bucket, settings.largest_bucket
            )

    @torch.no_grad()
    def encode(self, source: Source) -> Example:
        """A picture in the bucket of its shape."""
        picture = _open(source)
        bucket = nearest(picture.width, picture.height, self._buckets)
        original = picture.size
        filled = fill(picture, bucket)
        views = [filled, ImageOps.mirror(filled)] if self._flip else [filled]
        vae = self._networks.pipeline.vae
        latents = []
        for view in views:
            pixels = _as_tensor(view).to(vae.device, vae.dtype)
            found = vae.encode(pixels).latent_dist
            shift = getattr(vae.config, "shift_factor", None) or 0.0
            mean = (found.mean - shift) * vae.config.scaling_factor
            deviation = found.std * vae.config.scaling_factor
            latents.append(torch.cat([mean, deviation]).float().cpu())
        return Example(tuple(latents), source.caption, bucket, original, source.is_class)


def _open(source: Source) -> Image.Image:
    try:
        with Image.open(io.BytesIO(source.content)) as opened:
            if opened.width * opened.height > MOST_PIXELS:
                raise RequestFault(f"the picture {source.name} is too large")
            return ImageOps.exif_transpose(opened).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise RequestFault(f"the picture {source.name} cannot be read") from error


def _as_tensor(picture: Image.Image) -> Tensor:
    """RGB from 0 to 255 to [1, 3, height, width] from -1 to 1."""
    pixels: Any = np.asarray(picture, dtype=np.float32) / 127.5 - 1.0
    return torch.from_numpy(pixels).permute(2, 0, 1)[None]
