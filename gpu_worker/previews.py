"""Small pictures of what is being made, for those who watch."""

import io
from typing import Any, Protocol

import torch
from PIL import Image
from torch.nn import functional

# The VAE is asked for pictures of at most so many latents along a side: milliseconds, whatever is made.
MOST_LATENTS = 32
QUALITY = 75


class Previews(Protocol):
    """Where previews go; both calls return at once."""

    def preview_due(self) -> bool:
        """Whether one is wanted now."""

    def show(self, jpeg: bytes, step: int, image: int) -> None:
        """Takes the preview of the picture after `image` finished ones, after `step` steps."""


def draw(vae: Any, latents: torch.Tensor) -> bytes:
    """A JPEG of one picture's clean latents (channels, height, width), made smaller first."""
    longest = max(latents.shape[-2:])
    small = latents[None].to(vae.device, vae.dtype)
    if longest > MOST_LATENTS:
        size = [max(1, side * MOST_LATENTS // longest) for side in latents.shape[-2:]]
        small = functional.interpolate(small, size=size, mode="area")
    decoded = vae.decode(small / vae.config.scaling_factor, return_dict=False)[0][0]
    pixels = ((decoded.float().nan_to_num() / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels.permute(1, 2, 0).cpu().numpy()).save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()
