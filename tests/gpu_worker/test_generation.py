"""Batches: halved when memory ends, stopped when asked, the same pictures either way."""

from pathlib import Path
from typing import Any

import pytest
import torch

from gpu_worker.denoising import Step
from gpu_worker.device import Device
from gpu_worker.errors import Cancelled, MachineFault, RequestFault
from gpu_worker.generation import generate
from gpu_worker.loading import load_checkpoint
from gpu_worker.pipelines import LoadedCheckpoint
from gpu_worker.plan import ImageRequest, Plan
from gpu_worker.samplers import choose_sampling

PLAN = Plan(choose_sampling("Euler a", None), steps=2, cfg_scale=5, width=64, height=64)
REQUESTS = [ImageRequest(f"number {n}", "", seed=n) for n in range(5)]


@pytest.fixture(scope="module")
def checkpoint(models: Path, device: Device) -> LoadedCheckpoint:
    pipeline, description = load_checkpoint(models / "sd1.safetensors", "sd1", device)
    return LoadedCheckpoint("sd1", pipeline, description, "0" * 10)


def breaking(
    checkpoint: LoadedCheckpoint, monkeypatch: pytest.MonkeyPatch, error: Exception, above: int
) -> None:
    """Makes the UNet fail for more than `above` pictures (each counts twice: with and without prompt)."""
    forward = checkpoint.pipeline.unet.forward

    def limited(sample: torch.Tensor, *arguments: Any, **options: Any) -> Any:
        if sample.shape[0] > 2 * above:
            raise error
        return forward(sample, *arguments, **options)

    monkeypatch.setattr(checkpoint.pipeline.unet, "forward", limited)


def test_a_batch_that_does_not_fit_is_halved_and_makes_the_same_pictures(
    checkpoint: LoadedCheckpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    vae = checkpoint.pipeline.vae
    whole = generate(checkpoint, vae, REQUESTS, PLAN)
    breaking(checkpoint, monkeypatch, torch.OutOfMemoryError("CUDA out of memory"), above=2)
    halved = generate(checkpoint, vae, REQUESTS, PLAN)
    for one, other in zip(whole, halved, strict=True):
        assert max(abs(a - b) for a, b in zip(one.tobytes(), other.tobytes(), strict=True)) <= 1


def test_one_picture_that_does_not_fit_fails_with_its_size(
    checkpoint: LoadedCheckpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    breaking(checkpoint, monkeypatch, RuntimeError("DefaultCPUAllocator: can't allocate memory"), above=0)
    with pytest.raises(RequestFault, match="64x64 pixels does not fit"):
        generate(checkpoint, checkpoint.pipeline.vae, REQUESTS, PLAN)


def test_a_lost_gpu_is_the_machines_fault(
    checkpoint: LoadedCheckpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    breaking(checkpoint, monkeypatch, RuntimeError("CUDA error: device-side assert triggered"), above=0)
    with pytest.raises(MachineFault):
        generate(checkpoint, checkpoint.pipeline.vae, REQUESTS, PLAN)


def test_a_stop_ends_the_loop_after_the_step(checkpoint: LoadedCheckpoint) -> None:
    seen: list[int] = []

    def stop(step: Step) -> None:
        seen.append(step.done)
        raise Cancelled

    with pytest.raises(Cancelled):
        generate(checkpoint, checkpoint.pipeline.vae, REQUESTS, PLAN, stop)
    assert seen == [1]
