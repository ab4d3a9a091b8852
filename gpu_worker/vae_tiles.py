"""Runs a VAE on pictures that are too large for the memory tile by tile."""

import logging
import math
from collections.abc import Callable
from itertools import product

import torch
from torch.nn import functional

from gpu_worker.device import is_out_of_memory
from gpu_worker.loading import Vae

log = logging.getLogger(__name__)

# From here on a picture is never tried whole: in fp32 it would take more than ten gigabytes.
WHOLE_PIXELS = 2048 * 2048
TILE_PIXELS = 512
OVERLAP = 0.25


def decode(vae: Vae, latents: torch.Tensor) -> torch.Tensor:
    """Pictures ``(n, 3, height, width)`` from -1 to 1 of latents as the VAE knows them, unscaled."""
    return _whole_or_tiled(
        vae, lambda part: vae.decode(part, return_dict=False)[0], latents, unit_in=1, unit_out=scale_of(vae)
    )


def encode(vae: Vae, pictures: torch.Tensor) -> torch.Tensor:
    """The means of the encoder's distributions, unscaled, of pictures ``(n, 3, height, width)``."""
    return _whole_or_tiled(
        vae, lambda part: vae.encode(part).latent_dist.mode(), pictures, unit_in=scale_of(vae), unit_out=1
    )


def scale_of(vae: Vae) -> int:
    """Pixels of a picture for each latent along a side."""
    return int(2 ** (len(vae.config.block_out_channels) - 1))


def _whole_or_tiled(
    vae: Vae,
    call: Callable[[torch.Tensor], torch.Tensor],
    sample: torch.Tensor,
    unit_in: int,
    unit_out: int,
) -> torch.Tensor:
    """What `call` makes of `sample`; a latent is `unit_in` wide in that and `unit_out` in the result.

    What does not fit into memory as a whole is done in tiles.
    """
    scale = scale_of(vae)
    pixels = sample.shape[-1] * sample.shape[-2] * (scale // unit_in) ** 2
    if pixels <= WHOLE_PIXELS:
        try:
            return call(sample)
        except Exception as error:
            if not is_out_of_memory(error) or pixels <= TILE_PIXELS**2:
                raise
        log.warning("out of memory, the VAE works in tiles", extra={"pixels": pixels})
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    tile = TILE_PIXELS // scale
    if vae.decoder.conv_in.padding_mode != "circular":
        result, total = _in_tiles(call, sample, tile, unit_in, unit_out)
        return result / total
    # In a seamless picture tiles reach over the right and lower edge, where the other side is.
    beyond = int(tile * OVERLAP)
    wrapped = functional.pad(sample, (0, beyond * unit_in) * 2, mode="circular")
    sums = _in_tiles(call, wrapped, tile, unit_in, unit_out)
    result, total = (_folded(_folded(one, beyond * unit_out, -1), beyond * unit_out, -2) for one in sums)
    return result / total


def _folded(sums: torch.Tensor, width: int, axis: int) -> torch.Tensor:
    """Adds what lies beyond the last edge to what it is the same place as."""
    inside = sums.narrow(axis, 0, sums.shape[axis] - width).clone()
    inside.narrow(axis, 0, width).add_(sums.narrow(axis, inside.shape[axis], width))
    return inside


def _in_tiles(
    call: Callable[[torch.Tensor], torch.Tensor], sample: torch.Tensor, tile: int, unit_in: int, unit_out: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Overlapping tiles of `tile` latents along a side, fading at their edges, added up; and their weights.

    diffusers' own tiling leaves narrow strips at the right and at the bottom (16 latents of the 256 of 2048
    pixels), whose group norms see little but that strip: all tiles here are of one size.
    """
    rows, columns = (_starts(side // unit_in, tile) for side in sample.shape[-2:])
    result = total = torch.zeros(())
    for top, left in product(rows, columns):
        part = call(
            sample[
                ...,
                top * unit_in : (top + tile) * unit_in,
                left * unit_in : (left + tile) * unit_in,
            ]
        )
        height, width = part.shape[-2:]
        if result.dim() == 0:
            sides = [side // unit_in * unit_out for side in sample.shape[-2:]]
            result, total = part.new_zeros(*part.shape[:2], *sides), part.new_zeros(sides)
        fade = max(1, int(tile * OVERLAP)) * unit_out
        weights = (_fading(height, fade)[:, None] * _fading(width, fade)).to(part)
        place = (
            ...,
            slice(top * unit_out, top * unit_out + height),
            slice(left * unit_out, left * unit_out + width),
        )
        result[place] += part * weights
        total[place] += weights
    return result, total


def _starts(length: int, tile: int) -> list[int]:
    """Where tiles begin, evenly, so that neighbours overlap by a share of `OVERLAP` or more."""
    if length <= tile:
        return [0]
    overlap = int(tile * OVERLAP)
    count = math.ceil((length - overlap) / (tile - overlap))
    return [round(place * (length - tile) / (count - 1)) for place in range(count)]


def _fading(length: int, fade: int) -> torch.Tensor:
    """Weights that rise from the edges on."""
    rising = (torch.arange(length) + 0.5) / fade
    return torch.minimum(rising, rising.flip(0)).clamp(max=1)
