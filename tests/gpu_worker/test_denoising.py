"""The denoising loop beside diffusers' own, and what its hooks see."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from gpu_worker.conditioning import Conditioning, Part, PictureConditioning, Text
from gpu_worker.denoising import Evaluation, Hooks, Residuals, Step, Switch
from gpu_worker.device import Device
from gpu_worker.generation import Canvas, Start, from_noise, generate, sample
from gpu_worker.loading import load_checkpoint
from gpu_worker.noise_level import noise_level
from gpu_worker.pipelines import LoadedCheckpoint
from gpu_worker.plan import ImageRequest, Plan
from gpu_worker.samplers import choose_sampling, make_scheduler

REQUESTS = [ImageRequest("a red circle", "blurry", seed=4), ImageRequest("a blue star", "", seed=5)]


def load(path: Path, device: Device) -> LoadedCheckpoint:
    pipeline, description = load_checkpoint(path, path.name, device)
    return LoadedCheckpoint(path.name, pipeline, description, "0" * 10)


@pytest.fixture(scope="module")
def checkpoint(models: Path, device: Device) -> LoadedCheckpoint:
    return load(models / "sd1.safetensors", device)


def plan(sampler: str = "Euler", **changes: Any) -> Plan:
    values = {"steps": 5, "cfg_scale": 5.0, "width": 64, "height": 72}
    return Plan(choose_sampling(sampler, None), **values | changes)


def by_diffusers(
    checkpoint: LoadedCheckpoint, wanted: Plan, requests: list[ImageRequest] = REQUESTS
) -> list[Image.Image]:
    pipeline = checkpoint.pipeline
    pipeline.scheduler = make_scheduler(wanted.sampling, checkpoint.description.components["scheduler"])
    images: list[Image.Image] = pipeline(
        prompt=[request.prompt for request in requests],
        negative_prompt=[request.negative_prompt for request in requests],
        num_inference_steps=wanted.steps,
        guidance_scale=wanted.cfg_scale,
        width=wanted.width,
        height=wanted.height,
        eta=wanted.options.eta or 0.0,
        generator=[torch.Generator().manual_seed(request.seed) for request in requests],
    ).images
    return images


def assert_same(some: list[Image.Image], others: list[Image.Image]) -> None:
    """Equal up to one 255th in any channel of any pixel: sums are taken in another order."""
    for one, other in zip(some, others, strict=True):
        assert np.abs(np.asarray(one, int) - np.asarray(other, int)).max() <= 1


@pytest.mark.parametrize("sampler", ["Euler", "Euler a", "Heun", "DPM++ 2M", "DDIM", "PLMS", "LCM"])
def test_pictures_are_those_of_diffusers_own_loop(checkpoint: LoadedCheckpoint, sampler: str) -> None:
    wanted = plan(sampler)
    ours = generate(checkpoint, checkpoint.pipeline.vae, REQUESTS, wanted)
    assert_same(ours, by_diffusers(checkpoint, wanted))


def test_sdxl_pictures_are_those_of_diffusers_own_loop(models: Path, device: Device) -> None:
    checkpoint = load(models / "xl.safetensors", device)
    # An empty negative prompt is zeros for the WebUI; for diffusers only one that is absent is.
    requests = [replace(request, negative_prompt="blurry") for request in REQUESTS]
    ours = generate(checkpoint, checkpoint.pipeline.vae, requests, plan())
    assert_same(ours, by_diffusers(checkpoint, plan(), requests))


def run(checkpoint: LoadedCheckpoint, wanted: Plan, begin: Callable[[Canvas], Start]) -> torch.Tensor:
    with torch.inference_mode():
        return sample(checkpoint, checkpoint.pipeline.vae, REQUESTS, wanted, lambda _step: None, begin)


@pytest.mark.parametrize("sampler", ["Euler", "Heun", "DPM2", "DPM++ 2M", "DDIM"])
def test_a_start_on_the_way_joins_the_whole_run(checkpoint: LoadedCheckpoint, sampler: str) -> None:
    """With the whole run's latents at step 3 as its start, a run does steps 4 and 5 only."""
    seen: list[Step] = []
    wanted = plan(sampler)

    def whole(canvas: Canvas) -> Start:
        return Start(from_noise(canvas).latents, hooks=Hooks(on_step=seen.append))

    finished = run(checkpoint, wanted, whole)
    before = next(step for step in seen if step.done == 3)
    told: list[int] = []

    def rest(_canvas: Canvas) -> Start:
        hooks = Hooks(on_step=lambda step: told.append(step.done))
        return Start(before.latents, step=3, hooks=hooks)

    joined = run(checkpoint, wanted, rest)
    assert told[-1] == 2
    # Multistep solvers have forgotten what came before, so their last two steps differ a little.
    if sampler != "DPM++ 2M":
        assert torch.allclose(joined, finished, atol=1e-4)


@pytest.mark.parametrize("sampler", ["Euler", "Heun", "DPM2", "DPM++ 2M", "DDIM", "PLMS"])
def test_noised_latents_foreseen_without_error_are_the_clean_ones(
    checkpoint: LoadedCheckpoint, sampler: str
) -> None:
    """`NoiseLevel` agrees with the scheduler: the true noise as prediction gives the true picture back."""
    scheduler = make_scheduler(plan(sampler).sampling, checkpoint.description.components["scheduler"])
    scheduler.set_timesteps(5)
    clean, noise = torch.randn(1, 4, 8, 8), torch.randn(1, 4, 8, 8)
    timestep = scheduler.timesteps[0]
    level = noise_level(scheduler, 0)
    model_input = scheduler.scale_model_input(level.noised(clean, noise), timestep)
    assert torch.allclose(level.predicted(model_input, noise), clean, atol=1e-4)
    after = scheduler.step(noise, timestep, level.noised(clean, noise), return_dict=False)[0]
    assert torch.allclose(after, noise_level(scheduler, 1).noised(clean, noise), atol=2e-3)


def test_blend_keeps_what_it_puts_back(checkpoint: LoadedCheckpoint) -> None:
    clean = torch.randn(2, 4, 9, 8)

    def begin(canvas: Canvas) -> Start:
        def blend(step: Step) -> torch.Tensor:
            latents = step.latents.clone()
            latents[:, :, :4] = step.level.noised(clean, canvas.noise)[:, :, :4]
            return latents

        return Start(from_noise(canvas).latents, hooks=Hooks(blend=blend))

    blended = run(checkpoint, plan(), begin)
    assert torch.equal(blended[:, :, :4], clean[:, :, :4])
    assert not torch.isclose(blended[:, :, 4:], clean[:, :, 4:]).all()


def test_residuals_are_asked_for_every_row_and_reach_the_unet(checkpoint: LoadedCheckpoint) -> None:
    asked: list[Evaluation] = []

    def begin(canvas: Canvas) -> Start:
        def residuals(evaluation: Evaluation) -> Residuals:
            asked.append(evaluation)
            unet = canvas.checkpoint.pipeline.unet
            sample = evaluation.sample
            rows, _, height, width = sample.shape
            channels, deepest = unet.config.block_out_channels
            small = (rows, deepest, (height + 1) // 2, (width + 1) // 2)
            down = [torch.zeros(rows, channels, height, width) for _ in range(2)]
            down += [torch.zeros(rows, channels, *small[2:]), torch.zeros(small)]
            return Residuals(tuple(down), torch.full(small, 0.5))

        return Start(from_noise(canvas).latents, hooks=Hooks(residuals=residuals))

    changed = run(checkpoint, plan(), begin)
    assert len(asked) == 5
    assert asked[0].rows.pictures.tolist() == [0, 1, 0, 1]
    assert asked[0].rows.negative.tolist() == [1, 1, 0, 0]
    assert [evaluation.progress for evaluation in asked] == [0.0, 0.2, 0.4, 0.6, 0.8]
    assert not torch.allclose(changed, run(checkpoint, plan(), from_noise))


def test_the_switch_hands_over_to_another_model_and_texts(
    checkpoint: LoadedCheckpoint, models: Path, device: Device
) -> None:
    other = load(models / "sd1b.safetensors", device)
    loads: list[int] = []

    def begin(canvas: Canvas, after: float) -> Start:
        def switch() -> tuple[Any, Conditioning]:
            loads.append(1)
            return other.pipeline.unet, canvas.conditioning

        return Start(from_noise(canvas).latents, hooks=Hooks(switch=Switch(after, switch)))

    alone = run(checkpoint, plan(), from_noise)
    never = run(checkpoint, plan(), lambda canvas: begin(canvas, 1.0))
    assert torch.equal(never, alone)
    assert loads == []
    switched = run(checkpoint, plan(), lambda canvas: begin(canvas, 0.4))
    assert loads == [1]
    assert not torch.allclose(switched, alone)


def text(length: int = 77, value: float = 0.0) -> Text:
    return Text(torch.full((length, 8), value))


def test_rows_of_a_step_are_grouped_by_length_and_weighted() -> None:
    long, short, negative = text(154, 1.0), text(77, 2.0), text(77, 3.0)
    conditioning = Conditioning(
        [PictureConditioning((Part.constant(long, 0.5), Part.constant(short, 2.0)), Part.constant(negative))]
    )
    first, second = conditioning.at(0)
    assert first.embeddings.shape == (2, 77, 8)
    assert first.negative.tolist() == [1.0, 0.0]
    assert first.weights.tolist() == [-2.5, 2.0]
    assert second.weights.tolist() == [0.5]


def test_a_part_changes_at_its_step() -> None:
    before, after = text(value=1.0), text(value=2.0)
    part = Part(((3, before), (5, after)))
    assert [part.at(step) is before for step in range(6)] == [True, True, True, False, False, False]


def test_negative_prompts_without_a_share_are_not_computed(checkpoint: LoadedCheckpoint) -> None:
    asked: list[Evaluation] = []

    def begin(canvas: Canvas) -> Start:
        return Start(from_noise(canvas).latents, hooks=Hooks(residuals=asked.append))

    run(checkpoint, plan(cfg_scale=1.0), begin)
    assert asked[0].rows.negative.tolist() == [0, 0]
