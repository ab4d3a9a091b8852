"""What is wanted: the pictures of a batch, and the plan that all of them share."""

from dataclasses import dataclass, field
from typing import Any

from gpu_worker.networks import NO_NETWORKS, Networks
from gpu_worker.noise import SAME, Variation
from gpu_worker.sampler_options import DEFAULTS, SamplerOptions
from gpu_worker.samplers import Sampling


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """One picture: its texts and the seed of its own noise, so that it does not depend on its neighbours.

    Its texts are without the tags of networks; `source` is what a task makes it from, if that is not noise
    alone.
    """

    prompt: str
    negative_prompt: str
    seed: int
    variation: Variation = SAME
    source: Any = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Plan:
    """What all pictures of a batch share; requests of several jobs with equal plans may be batched.

    Prompts are scheduled over `prompt_steps` (0: `steps`) after the `steps_before` of an earlier pass.
    """

    sampling: Sampling
    steps: int
    cfg_scale: float
    width: int
    height: int
    options: SamplerOptions = DEFAULTS
    clip_skip: int = 1
    clip_skip_xl: bool = False
    networks: Networks = NO_NETWORKS
    prompt_steps: int = 0
    steps_before: int = 0
