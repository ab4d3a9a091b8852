"""Runs the samplers of `k_samplers` behind the interface that diffusers' schedulers have."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from diffusers import EulerDiscreteScheduler
from diffusers.configuration_utils import FrozenDict
from diffusers.utils.torch_utils import randn_tensor

from gpu_worker.k_samplers import Algorithm, Work
from gpu_worker.noise_level import NoiseLevel
from gpu_worker.sampler_options import SamplerOptions
from gpu_worker.schedules import NoiseTable, levels


class KScheduler:
    """A scheduler of diffusers' kind; `order` evaluations make a step, the last step may take fewer.

    `sigmas` are the levels at which the model is asked, in their order, with 0 after the last.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        order: int,
        schedule: str,
        options: SamplerOptions,
        base: dict[str, Any],
        *,
        is_xl: bool = False,
        drops_next_to_last: bool = False,
    ) -> None:
        # diffusers' own class knows how betas are made, and rescaled for models without a last signal.
        trained: Any = EulerDiscreteScheduler(**base)
        self.config: Any = FrozenDict(trained.config | {"schedule": schedule})
        self.order = order
        self._algorithm = algorithm
        self._schedule = schedule
        self._options = options
        self._drops = drops_next_to_last
        self._table = NoiseTable.from_alphas(trained.alphas_cumprod.double().numpy(), is_xl)
        self._levels: list[float] = []
        self._begin = 0
        self._index: int | None = None
        self._work: Work | None = None
        self.timesteps = torch.zeros(0)
        self.sigmas = torch.zeros(1)
        self.init_noise_sigma = self._table.most

    def set_timesteps(self, num_inference_steps: int, device: Any = None) -> None:
        """Chooses the levels of so many steps and begins anew."""
        steps = num_inference_steps + 1 if self._drops else num_inference_steps
        chosen = levels(self._schedule, steps, self._table)
        self._levels = [*chosen[:-2], chosen[-1]] if self._drops else list(chosen)
        asked = self._asked(self._levels)
        times = self._table.time_of(np.array(asked))
        self.timesteps = torch.tensor(times, dtype=torch.float32, device=device)
        self.sigmas = torch.tensor([*asked, 0.0], dtype=torch.float64)
        self.init_noise_sigma = asked[0]
        self._begin, self._index, self._work = 0, None, None

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Begins at an evaluation on the way; it must be the first of a step."""
        self._begin = begin_index

    def scale_model_input(self, sample: torch.Tensor, timestep: Any = None) -> torch.Tensor:
        """Latents as the model is used to see them."""
        sigma = float(self.sigmas[self._begin if self._index is None else self._index])
        return sample / (sigma**2 + 1) ** 0.5

    def step(
        self,
        model_output: torch.Tensor,
        timestep: Any,
        sample: torch.Tensor,
        generator: Sequence[torch.Generator] | None = None,
        return_dict: bool = False,
    ) -> tuple[torch.Tensor]:
        """The latents for the next evaluation, or the finished ones."""
        if self._work is None or self._index is None:
            self._index = self._begin
            self._work = self._start(sample, generator)
            next(self._work)
        level = NoiseLevel(float(self.sigmas[self._index]), False, self.config.prediction_type)
        clean = level.predicted(self.scale_model_input(sample), model_output)
        self._index += 1
        try:
            after, _ = self._work.send((sample, clean))
        except StopIteration as end:
            after = end.value
        return (after,)

    def _start(self, sample: torch.Tensor, generator: Any) -> Work:
        def noise() -> torch.Tensor:
            return randn_tensor(sample.shape, generator=generator, device=sample.device, dtype=sample.dtype)

        rest = self._levels[self._begin // self.order :]
        # The share of each step stays what it is in the whole schedule.
        churn = self._options.s_churn * (len(rest) - 1) / (len(self._levels) - 1)
        return self._algorithm(sample, rest, replace(self._options, s_churn=churn), noise)

    def _asked(self, chosen: Sequence[float]) -> list[float]:
        """The levels at which the algorithm asks, found by running it on a single zero."""
        nothing = torch.zeros(1)
        work = self._algorithm(nothing, chosen, self._options, lambda: nothing)
        asked, (_, sigma) = [], next(work)
        while True:
            asked.append(float(sigma))
            try:
                _, sigma = work.send((nothing, nothing))
            except StopIteration:
                return asked
