"""Large pictures through the VAE tile by tile."""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch

from gpu_worker import vae_tiles
from gpu_worker.generation import decode
from gpu_worker.latents import encode
from gpu_worker.pipelines import LoadedCheckpoint, ModelMemory
from gpu_worker.tiling import circular
from tests.gpu_worker import house
from tests.gpu_worker.contexts import context

TILE = 128


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


def in_tiles(vae: Any, latents: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> torch.Tensor:
    """Decoded in tiles of 128x128 pixels."""
    monkeypatch.setattr(vae_tiles, "TILE_PIXELS", TILE)
    monkeypatch.setattr(vae_tiles, "WHOLE_PIXELS", TILE**2)
    with torch.inference_mode():
        return vae_tiles.decode(vae, latents)


def jumps(difference: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """How much what tiles add or take away jumps from each row to the next, and from each column."""
    return tuple(difference.diff(dim=axis).abs().mean((0, 1, 5 - axis)) for axis in (2, 3))  # type: ignore[return-value]


def test_what_does_not_fit_whole_is_decoded_in_tiles(
    checkpoint: LoadedCheckpoint, latents: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    vae = checkpoint.pipeline.vae
    monkeypatch.setattr(vae_tiles, "TILE_PIXELS", TILE)
    widths = outgrowing(vae, monkeypatch, side=TILE // 8)
    picture = decode(checkpoint, vae, latents)[0]
    assert picture.size == (192, 192)
    assert widths[0] == 24
    assert set(widths[1:]) == {16}


def test_tiles_show_no_seam_and_keep_the_tone(
    checkpoint: LoadedCheckpoint, latents: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tiles at 0 and 64 of 192 pixels: each begins or ends where the other one goes on."""
    vae = checkpoint.pipeline.vae
    with torch.inference_mode():
        whole = vae.decode(latents).sample
    difference = in_tiles(vae, latents, monkeypatch) - whole
    for jump in jumps(difference):
        borders = jump[[63, 127]]
        assert float(borders.max()) <= float(jump.quantile(0.95))
    # Of a range of 2: one of a hundred is about what eyes tell apart in two pictures side by side.
    assert float(difference.mean((0, 2, 3)).abs().max()) < 0.02


def test_tiles_are_as_near_to_the_whole_as_those_of_diffusers(
    checkpoint: LoadedCheckpoint, latents: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    vae = checkpoint.pipeline.vae
    monkeypatch.setattr(vae, "tile_sample_min_size", TILE)
    monkeypatch.setattr(vae, "tile_latent_min_size", TILE // 8)
    # 200 pixels leave diffusers a last tile of eight.
    wide = torch.nn.functional.pad(latents, (0, 1, 0, 1), mode="replicate")
    for sample in (latents, wide):
        with torch.inference_mode():
            whole, theirs = vae.decode(sample).sample, vae.tiled_decode(sample).sample
        ours = in_tiles(vae, sample, monkeypatch)
        assert float((ours - whole).abs().mean()) < float((theirs - whole).abs().mean())


def test_what_tiles_change_comes_from_norms_that_see_but_their_tile(
    checkpoint: LoadedCheckpoint, latents: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the whole picture's means and deviations in every norm, less than half of the difference is left:
    that of the attention, which sees but its tile too, and of the edges' padding."""
    vae = checkpoint.pipeline.vae
    seen: dict[torch.nn.Module, tuple[torch.Tensor, torch.Tensor]] = {}

    def norm(module: torch.nn.GroupNorm, sample: torch.Tensor) -> torch.Tensor:
        groups = sample.reshape(len(sample), module.num_groups, -1)
        deviation, mean = torch.std_mean(groups, dim=-1, correction=0, keepdim=True)
        mean, deviation = seen.setdefault(module, (mean, deviation))
        normed = ((groups - mean) / (deviation**2 + module.eps).sqrt()).reshape(sample.shape)
        shape = (1, -1) + (1,) * (sample.dim() - 2)
        return normed * module.weight.view(shape) + module.bias.view(shape)

    with torch.inference_mode():
        whole = vae.decode(latents).sample
    usual = in_tiles(vae, latents, monkeypatch)
    for module in vae.decoder.modules():
        if isinstance(module, torch.nn.GroupNorm):
            monkeypatch.setattr(module, "forward", partial(norm, module))
    with torch.inference_mode():
        torch.testing.assert_close(vae.decode(latents).sample, whole, atol=1e-4, rtol=0)
    shared = in_tiles(vae, latents, monkeypatch)
    assert float((shared - whole).abs().mean()) < 0.5 * float((usual - whole).abs().mean())


def test_a_seamless_picture_stays_seamless_in_tiles(
    checkpoint: LoadedCheckpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Colours jump over its outer edges no more than they do inside from one latent to the next."""
    vae = checkpoint.pipeline.vae
    noisy = torch.randn(1, 4, 24, 24, generator=torch.Generator().manual_seed(1))
    with circular(True, vae):
        seamless = in_tiles(vae, noisy, monkeypatch)
    over, plain = (
        float((made[..., 0] - made[..., -1]).abs().mean() / made.diff(dim=3)[..., 7::8].abs().mean())
        for made in (seamless, in_tiles(vae, noisy, monkeypatch))
    )
    assert seamless.shape[-2:] == (192, 192)
    assert over < 1.2, plain
    assert plain > 2


@pytest.mark.parametrize("length", [16, 17, 24, 25, 64, 256, 511])
def test_tiles_are_of_one_size_and_overlap_by_a_quarter(length: int) -> None:
    starts = vae_tiles._starts(length, 16)
    assert starts[0] == 0
    assert starts[-1] == length - 16
    assert all(4 <= 16 - (later - start) < 16 for start, later in pairwise(starts))


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
