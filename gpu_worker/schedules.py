"""The WebUI's schedules: the noise levels that a number of steps goes through, by their names."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

Levels = NDArray[np.float64]

# The levels of ten steps that NVIDIA optimised for each family: https://research.nvidia.com/labs/toronto-ai/
# AlignYourSteps/howto.html
ALIGNED = (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029)
ALIGNED_XL = (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029)
KARRAS_RHO = 7.0
BETA_SHAPE = 0.6


@dataclass(frozen=True, slots=True)
class NoiseTable:
    """The deviations of the noise at the training's time steps, rising; `is_xl` tells tables apart."""

    sigmas: Levels
    is_xl: bool = False

    @classmethod
    def from_alphas(cls, alphas_cumprod: Levels, is_xl: bool = False) -> "NoiseTable":
        """From what is left of the picture at each time step."""
        return cls(np.sqrt((1 - alphas_cumprod) / alphas_cumprod), is_xl)

    @property
    def least(self) -> float:
        """The lowest level of the training."""
        return float(self.sigmas[0])

    @property
    def most(self) -> float:
        """The highest level of the training."""
        return float(self.sigmas[-1])

    def sigma_at(self, time: Levels) -> Levels:
        """Levels at time steps, which may lie between those of the training."""
        return np.exp(np.interp(time, np.arange(len(self.sigmas)), np.log(self.sigmas)))

    def time_of(self, sigma: Levels) -> Levels:
        """The reverse of `sigma_at`."""
        return np.interp(np.log(sigma), np.log(self.sigmas), np.arange(len(self.sigmas)))


def levels(schedule: str, steps: int, table: NoiseTable) -> Levels:
    """The falling levels of `steps` steps, with 0 after the last."""
    return np.append(_SCHEDULES[schedule](steps, table), 0.0)


def _uniform(steps: int, table: NoiseTable) -> Levels:
    return table.sigma_at(np.linspace(len(table.sigmas) - 1, 0, steps))


def _sgm_uniform(steps: int, table: NoiseTable) -> Levels:
    return table.sigma_at(np.linspace(len(table.sigmas) - 1, 0, steps + 1)[:-1])


def _karras(steps: int, table: NoiseTable) -> Levels:
    """Equation 5 of https://arxiv.org/abs/2206.00364."""
    ends = table.most ** (1 / KARRAS_RHO), table.least ** (1 / KARRAS_RHO)
    return np.linspace(*ends, steps) ** KARRAS_RHO


def _exponential(steps: int, table: NoiseTable) -> Levels:
    return np.exp(np.linspace(np.log(table.most), np.log(table.least), steps))


def _kl_optimal(steps: int, table: NoiseTable) -> Levels:
    """Equation 8 of https://arxiv.org/abs/2404.14507, its last level replaced by 0."""
    return np.tan(np.linspace(np.arctan(table.most), np.arctan(table.least), steps + 1)[:-1])


def _align_your_steps(steps: int, table: NoiseTable) -> Levels:
    known: Sequence[float] = ALIGNED_XL if table.is_xl else ALIGNED
    places = np.linspace(0, 1, len(known))
    return np.exp(np.interp(np.linspace(0, 1, steps), places, np.log(known)))


def _simple(steps: int, table: NoiseTable) -> Levels:
    stride = len(table.sigmas) / steps
    return np.array([table.sigmas[-1 - int(step * stride)] for step in range(steps)])


def _ddim(steps: int, table: NoiseTable) -> Levels:
    stride = max(len(table.sigmas) // steps, 1)
    places = np.minimum(1 + stride * np.arange(steps), len(table.sigmas) - 1)
    return np.asarray(table.sigmas[places[::-1]])


def _beta(steps: int, table: NoiseTable) -> Levels:
    """https://arxiv.org/abs/2407.12173, over levels as in modules/sd_schedulers.py of the WebUI."""
    shares = beta.ppf(np.linspace(1, 0, steps), BETA_SHAPE, BETA_SHAPE)
    return np.asarray(table.least + shares * (table.most - table.least))


# Names and meanings: modules/sd_schedulers.py of the WebUI, whose polyexponential has the exponent 1.
_SCHEDULES: dict[str, Callable[[int, NoiseTable], Levels]] = {
    "Uniform": _uniform,
    "Karras": _karras,
    "Exponential": _exponential,
    "Polyexponential": _exponential,
    "SGM Uniform": _sgm_uniform,
    "KL Optimal": _kl_optimal,
    "Align Your Steps": _align_your_steps,
    "Simple": _simple,
    "Normal": _uniform,
    "DDIM": _ddim,
    "Beta": _beta,
}
SCHEDULE_NAMES = tuple(_SCHEDULES)
