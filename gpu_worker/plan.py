"""What is wanted: the pictures of a batch, and the plan that all of them share."""

from dataclasses import dataclass, field
from typing import Any

from gpu_worker.noise import SAME, Variation
from gpu_worker.sampler_options import DEFAULTS, SamplerOptions
from gpu_worker.samplers import Sampling


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """One picture: its texts and the seed of its own noise, so that it does not depend on its neighbours.

    `source` is what a task makes it from, if that is not noise alone.
    """

    prompt: str
    negative_prompt: str
    seed: int
    variation: Variation = SAME
    source: Any = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Plan:
    """What all pictures of a batch share; requests of several jobs with equal plans may be batched."""

    sampling: Sampling
    steps: int
    cfg_scale: float
    width: int
    height: int
    options: SamplerOptions = DEFAULTS
    clip_skip: int = 1
