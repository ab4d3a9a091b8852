"""The noise that pictures are made from, drawn for each picture by itself."""

from dataclasses import dataclass

import torch

from gpu_worker.infotext import exact

LATENT_PIXELS = 8
ALMOST_EQUAL = 0.9995


@dataclass(frozen=True, slots=True)
class Variation:
    """What a picture's noise takes from another seed, and from another size.

    `strength` of 0 is the seed's own noise, 1 that of `subseed`; `size` (height, width) in latents is that of
    the picture whose composition is to be kept, None the picture's own.
    """

    subseed: int = 0
    strength: float = 0.0
    size: tuple[int, int] | None = None


SAME = Variation()


def fields(variation: Variation) -> dict[str, object]:
    """What an infotext says of it, in the WebUI's names and in pixels."""
    is_varied, size = variation.strength > 0, variation.size
    return {
        "Variation seed": variation.subseed if is_varied else None,
        "Variation seed strength": exact(variation.strength) if is_varied else None,
        "Seed resize from": f"{size[1] * LATENT_PIXELS}x{size[0] * LATENT_PIXELS}" if size else None,
    }


def generator(seed: int) -> torch.Generator:
    """A picture's own source of noise; on the CPU, so that a seed means the same on every machine."""
    return torch.Generator("cpu").manual_seed(seed)


def draw(shape: tuple[int, ...], source: torch.Generator) -> torch.Tensor:
    """Normal noise of `shape` in fp32."""
    return torch.randn(shape, generator=source, dtype=torch.float32)


def first(
    shape: tuple[int, int, int], seed: int, source: torch.Generator, variation: Variation
) -> torch.Tensor:
    """The noise that a picture starts from, as ``ImageRNG.first`` in modules/rng.py of the WebUI.

    `source` is the generator of `seed`, which goes on to make the noise on the way.
    """
    inner = (shape[0], *(variation.size or shape[1:]))
    noise = draw(inner, generator(seed) if inner != shape else source)
    if variation.strength > 0:
        noise = _between(noise, draw(inner, generator(variation.subseed)), variation.strength)
    return noise if inner == shape else _in_the_middle(noise, draw(shape, source))


def _between(one: torch.Tensor, other: torch.Tensor, share: float) -> torch.Tensor:
    """Spherical interpolation of the columns, which keeps noise as strong as it is (``slerp`` there)."""
    directions = (noise / noise.norm(dim=1, keepdim=True) for noise in (one, other))
    cosine = torch.stack(list(directions)).prod(0).sum(1, keepdim=True)
    if cosine.mean() > ALMOST_EQUAL:
        return one * (1 - share) + other * share
    angle = cosine.acos()
    return (((1 - share) * angle).sin() * one + (share * angle).sin() * other) / angle.sin()


def _in_the_middle(noise: torch.Tensor, around: torch.Tensor) -> torch.Tensor:
    """`around` with `noise` over its middle, or with the middle of `noise` where that is larger."""
    target, source = [], []
    for outer, inner in zip(around.shape[1:], noise.shape[1:], strict=True):
        shift = (outer - inner) // 2
        length = inner if shift >= 0 else inner + 2 * shift
        target.append(slice(max(shift, 0), max(shift, 0) + length))
        source.append(slice(max(-shift, 0), max(-shift, 0) + length))
    around[:, target[0], target[1]] = noise[:, source[0], source[1]]
    return around
