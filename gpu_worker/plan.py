"""What is wanted: the pictures of a batch, and the plan that all of them share."""

from dataclasses import dataclass

from gpu_worker.samplers import Sampling


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """One picture: its texts and the seed of its own noise, so that it does not depend on its neighbours."""

    prompt: str
    negative_prompt: str
    seed: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What all pictures of a batch share; requests of several jobs with equal plans may be batched."""

    sampling: Sampling
    steps: int
    cfg_scale: float
    width: int
    height: int
    eta: float = 0.0
    clip_skip: int = 1
