"""The denoising loop: initial latents in, finished latents out, with hooks where tasks differ."""

import inspect
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from gpu_worker import metrics
from gpu_worker.conditioning import Conditioning, Rows
from gpu_worker.noise_level import NoiseLevel, noise_level

# ``latents`` below are always (pictures, channels, height / 8, width / 8), in fp32, on the UNet's device.


@dataclass(frozen=True, slots=True)
class Step:
    """One evaluation of the UNet that is done, as `on_step` and `blend` see it.

    `done` counts the steps since the start as requests do (second-order samplers evaluate about twice for
    one); `latents` are those after the step, noisy to `level`; `predicted()` are the finished latents as the
    model foresees them now.
    """

    done: int
    latents: torch.Tensor
    level: NoiseLevel
    predicted: Callable[[], torch.Tensor]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What the UNet is about to be asked: a batch of rows at one moment of the denoising.

    `sample` (rows, channels, height, width) is scaled and without extra channels; `progress` runs from 0 to
    1 over all steps of the request.
    """

    sample: torch.Tensor
    timestep: torch.Tensor
    rows: Rows
    progress: float


@dataclass(frozen=True, slots=True)
class Residuals:
    """What a ControlNet adds inside the UNet, for every row of an evaluation."""

    down: tuple[torch.Tensor, ...]
    middle: torch.Tensor


@dataclass(frozen=True, slots=True)
class Switch:
    """Another model that takes over once the fraction `after` of the noise is gone (SDXL's refiner)."""

    after: float
    load: Callable[[], tuple[Any, Conditioning]]


@dataclass(frozen=True, slots=True)
class Hooks:
    """Where tasks differ; every one may be left out.

    `extra_channels` (pictures, channels, height, width) follow the latents into the UNet (inpainting
    checkpoints); `residuals` is asked before each evaluation; `blend` replaces the latents after each;
    `on_step` is told of each and may raise `Dropped`.
    """

    extra_channels: torch.Tensor | None = None
    residuals: Callable[[Evaluation], Residuals | None] | None = None
    blend: Callable[[Step], torch.Tensor] | None = None
    on_step: Callable[[Step], None] | None = None
    switch: Switch | None = None


@dataclass(frozen=True, slots=True)
class Guidance:
    """How far the prediction is led from the negative prompt to the prompt (classifier-free guidance)."""

    scale: float
    # Below this level of noise every other step goes without negative prompts (the WebUI's NGMS), or each.
    least_sigma: float = 0.0
    is_least_for_each: bool = False
    # This share of the steps at the beginning goes without them (the WebUI's Skip Early CFG).
    unguided_share: float = 0.0


def denoise(
    unet: Any,
    scheduler: Any,
    latents: torch.Tensor,
    conditioning: Conditioning,
    guidance: Guidance,
    generators: Sequence[torch.Generator],
    *,
    steps: int,
    start: int = 0,
    options: dict[str, Any] | None = None,
    hooks: Hooks = Hooks(),
) -> torch.Tensor:
    """Removes the noise of `latents`, which lie at the noise level of step `start` of `steps`.

    `scheduler` has its timesteps set; each picture's own generator makes the noise that is added on the way;
    `options` are passed to ``scheduler.step`` if it takes them.
    """
    run = _Run(unet, conditioning, guidance, hooks)
    evaluations = len(scheduler.timesteps)
    positions = range(start * scheduler.order, evaluations)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(positions.start)
    given = _accepted(scheduler, {"generator": list(generators), **(options or {})})
    began = time.perf_counter()
    for position in positions:
        timestep = scheduler.timesteps[position]
        run.switch_if_due(timestep)
        level = noise_level(scheduler, position)
        sample = scheduler.scale_model_input(latents, timestep)
        step_before = position // scheduler.order - start
        evaluation = position - positions.start
        guided = run.is_guided(evaluation, evaluation / len(positions), level.sigma)
        prediction = run.predict(sample, timestep, step_before, position / evaluations, guided)
        latents = scheduler.step(prediction, timestep, latents, return_dict=False, **given)[0]
        latents = run.finish(
            Step(
                done=_steps_done(position + 1, scheduler, steps) - start,
                latents=latents,
                level=noise_level(scheduler, position + 1),
                predicted=partial(level.predicted, sample, prediction),
            )
        )
    if latents.is_cuda:
        torch.cuda.synchronize()  # what was asked of the GPU is not yet done
    metrics.denoised(steps - start, time.perf_counter() - began)
    return latents


def _steps_done(evaluations: int, scheduler: Any, steps: int) -> int:
    """A step takes `order` evaluations, the last one may take fewer; PLMS evaluates one step twice."""
    if evaluations == len(scheduler.timesteps):
        return steps
    return min(max(evaluations // scheduler.order, 1), steps)


def _accepted(scheduler: Any, options: dict[str, Any]) -> dict[str, Any]:
    parameters = inspect.signature(scheduler.step).parameters
    return {name: value for name, value in options.items() if name in parameters}


class _Run:
    """The model, texts and hooks of one denoising; the model may change on the way."""

    def __init__(self, unet: Any, conditioning: Conditioning, guidance: Guidance, hooks: Hooks) -> None:
        self._unet = unet
        self._conditioning = conditioning
        self._guidance = guidance
        self._hooks = hooks
        self._switch = hooks.switch

    def switch_if_due(self, timestep: torch.Tensor) -> None:
        """Changes to the refiner; the moment is told by the noise, as in the WebUI."""
        if self._switch is not None and (999 - float(timestep)) / 1000 > self._switch.after:
            self._unet, self._conditioning = self._switch.load()
            self._switch = None
            # ControlNets belong to the model before; the WebUI's refiner goes on without them.
            self._hooks = replace(self._hooks, residuals=None)

    def is_guided(self, evaluation: int, share_done: float, sigma: float) -> bool:
        """Whether negative prompts have their share; prompts joined by ``AND`` always need them.

        ``CFGDenoiser.forward`` in modules/sd_samplers_cfg_denoiser.py of the WebUI.
        """
        guidance = self._guidance
        is_early = 0 < guidance.unguided_share >= share_done
        is_its_turn = evaluation % 2 == 1 or guidance.is_least_for_each
        is_late = is_its_turn and sigma < guidance.least_sigma
        is_alone = all(picture.pull == 1 for picture in self._conditioning.pictures)
        return not ((is_early or is_late) and is_alone)

    def predict(
        self, sample: torch.Tensor, timestep: torch.Tensor, step: int, progress: float, guided: bool = True
    ) -> torch.Tensor:
        """The guided prediction of every picture, in fp32."""
        total = torch.zeros_like(sample)
        scale = self._guidance.scale if guided else 1.0
        for rows in self._conditioning.at(step, with_negative=self._conditioning.needs_negative(scale)):
            predicted = self._evaluate(Evaluation(sample[rows.pictures], timestep, rows, progress))
            shares = rows.negative + scale * rows.weights
            total.index_add_(0, rows.pictures, predicted * shares.view(-1, 1, 1, 1))
        return total

    def _evaluate(self, evaluation: Evaluation) -> torch.Tensor:
        rows, hooks, dtype = evaluation.rows, self._hooks, self._unet.dtype
        residuals = hooks.residuals(evaluation) if hooks.residuals else None
        sample = evaluation.sample
        if hooks.extra_channels is not None:
            sample = torch.cat([sample, hooks.extra_channels[rows.pictures].to(sample)], dim=1)
        return self._unet(
            sample.to(dtype),
            evaluation.timestep,
            encoder_hidden_states=rows.embeddings.to(dtype),
            added_cond_kwargs=rows.added,
            down_block_additional_residuals=residuals.down if residuals else None,
            mid_block_additional_residual=residuals.middle if residuals else None,
            return_dict=False,
        )[0].float()

    def finish(self, step: Step) -> torch.Tensor:
        """Runs the hooks after an evaluation."""
        latents = self._hooks.blend(step) if self._hooks.blend else step.latents
        if self._hooks.on_step:
            self._hooks.on_step(step)
        return latents
