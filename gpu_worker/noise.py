"""The noise that pictures are made from, drawn for each picture by itself."""

import torch


def generator(seed: int) -> torch.Generator:
    """A picture's own source of noise; on the CPU, so that a seed means the same on every machine."""
    return torch.Generator("cpu").manual_seed(seed)


def draw(shape: tuple[int, ...], source: torch.Generator) -> torch.Tensor:
    """Normal noise of `shape` in fp32."""
    return torch.randn(shape, generator=source, dtype=torch.float32)
