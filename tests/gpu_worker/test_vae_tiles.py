"""Large pictures through the VAE tile by tile."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from gpu_worker import vae_tiles
from gpu_worker.generation import decode
from gpu_worker.latents import encode
from gpu_worker.pipelines import LoadedCheckpoint, ModelMemory
from tests.gpu_worker import house
from tests.gpu_worker.contexts import context


@pytest.fixture
def checkpoint(memory: ModelMemory) -> LoadedCheckpoint:
    work = context(memory.device, "txt2img", {}, {"Stable-diffusion": [house.CHECKPOINT]}, memory)
    return memory.checkpoint(work.job.models[0], work.open_file)


@pytest.fixture
def latents(memory: ModelMemory, checkpoint: LoadedCheckpoint) -> torch.Tensor:
    """A scene of 192x192 pixels."""
    body = {"prompt": "a red circle on a white background", "width": 192, "height": 192, "steps": 2}
    picture = house.run(memory, "txt2img", **body).pictures[0].image
    return encode(checkpoint.pipeline.vae, [picture])


def outgrowing(vae: Any, monkeypatch: pytest.MonkeyPatch, side: int) -> list[int]:
    """The decoder has no memory for latents wider than `side`; the widths that it was given."""
    forward: Callable[..., Any] = vae.decoder.forward
    widths: list[int] = []

    def limited(sample: torch.Tensor, *arguments: Any) -> Any:
        widths.append(sample.shape[-1])
        if sample.shape[-1] > side:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(sample, *arguments)

    monkeypatch.setattr(vae.decoder, "forward", limited)
    return widths


def test_what_does_not_fit_whole_is_decoded_in_tiles_that_show_no_seam(
    checkpoint: LoadedCheckpoint, latents: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    vae = checkpoint.pipeline.vae
    whole = decode(checkpoint, vae, latents)[0]
    monkeypatch.setattr(vae_tiles, "TILE_PIXELS", 128)
    widths = outgrowing(vae, monkeypatch, side=16)
    tiled = decode(checkpoint, vae, latents)[0]
    assert widths[0] == 24
    assert set(widths[1:]) <= set(range(1, 17))
    assert np.abs(house.pixels(whole) - house.pixels(tiled)).mean() < 4  # each tile has its own norms
    assert not vae.use_tiling


def test_the_largest_pictures_are_never_tried_whole(
    checkpoint: LoadedCheckpoint, latents: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    vae = checkpoint.pipeline.vae
    monkeypatch.setattr(vae_tiles, "TILE_PIXELS", 128)
    monkeypatch.setattr(vae_tiles, "WHOLE_PIXELS", 128 * 128)
    widths = outgrowing(vae, monkeypatch, side=16)
    picture = decode(checkpoint, vae, latents)[0]
    assert picture.size == (192, 192)
    assert 24 not in widths
    assert encode(vae, [picture]).shape == latents.shape


def test_what_does_not_fit_in_tiles_fails_as_ever(
    checkpoint: LoadedCheckpoint, latents: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    vae = checkpoint.pipeline.vae
    monkeypatch.setattr(vae_tiles, "TILE_PIXELS", 128)
    outgrowing(vae, monkeypatch, side=0)
    with pytest.raises(torch.OutOfMemoryError):
        decode(checkpoint, vae, latents)
    assert not vae.use_tiling
