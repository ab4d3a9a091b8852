"""Runs a VAE on pictures that are too large for the memory tile by tile."""

import logging
from collections.abc import Callable
from typing import TypeVar

import torch

from gpu_worker.device import is_out_of_memory
from gpu_worker.loading import Vae

log = logging.getLogger(__name__)

# From here on a picture is never tried whole: in fp32 it would take more than ten gigabytes.
WHOLE_PIXELS = 2048 * 2048
TILE_PIXELS = 512
Result = TypeVar("Result")


def in_tiles_if_needed(vae: Vae, pixels: int, call: Callable[[], Result]) -> Result:
    """What `call` gives, which encodes or decodes pictures of so many `pixels`.

    Tiles overlap and are blended, so that their edges are not seen; diffusers does it. What does not fit as a
    whole is done in tiles too.
    """
    if pixels <= WHOLE_PIXELS:
        try:
            return call()
        except Exception as error:
            if not is_out_of_memory(error) or pixels <= TILE_PIXELS**2:
                raise
        log.warning("out of memory, the VAE works in tiles", extra={"pixels": pixels})
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    # diffusers takes the size of tiles from that of the training pictures, which is tiny for tiny models.
    vae.tile_sample_min_size = TILE_PIXELS
    vae.tile_latent_min_size = TILE_PIXELS // 2 ** (len(vae.config.block_out_channels) - 1)
    vae.enable_tiling()
    try:
        return call()
    finally:
        vae.disable_tiling()
