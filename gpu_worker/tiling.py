"""Seamless pictures: convolutions that look round the edge to the other side, put back afterwards."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def circular(is_wanted: bool, *models: nn.Module) -> Iterator[None]:
    """Inside the block every convolution of the models pads with the opposite edge, as the WebUI's tiling."""
    changed = [
        module
        for model in (models if is_wanted else ())
        for module in model.modules()
        if isinstance(module, nn.Conv2d) and module.padding_mode != "circular"
    ]
    before = [module.padding_mode for module in changed]
    try:
        for module in changed:
            module.padding_mode = "circular"
        yield
    finally:
        for module, mode in zip(changed, before, strict=True):
            module.padding_mode = mode
