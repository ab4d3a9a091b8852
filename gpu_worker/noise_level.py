"""How noisy latents are at a place of a schedule, whatever diffusers' scheduler calls it."""

from dataclasses import dataclass
from typing import Any

import torch

# Of a schedule that ends in nothing but noise; diffusers' EulerDiscreteScheduler takes the same number.
LEAST_KEPT = 2.0**-24


@dataclass(frozen=True, slots=True)
class NoiseLevel:
    """Noise of deviation `sigma` beside latents of weight one.

    Some schedulers keep latents as ``x0 + sigma * noise`` (`is_scaled` False), others divide that by
    ``sqrt(1 + sigma ** 2)``; the model always sees the latter.
    """

    sigma: float
    is_scaled: bool
    prediction_type: str = "epsilon"

    def noised(self, latents: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Clean `latents` with `noise`, as the scheduler would hold them here."""
        mixed = latents + self.sigma * noise
        return mixed / self._length if self.is_scaled else mixed

    def predicted(self, sample: torch.Tensor, prediction: torch.Tensor) -> torch.Tensor:
        """The clean latents that follow from the model's input and its prediction."""
        if self.prediction_type == "sample":
            return prediction
        if self.prediction_type == "v_prediction":
            return (sample - self.sigma * prediction) / self._length
        return sample * self._length - self.sigma * prediction

    @property
    def _length(self) -> float:
        return float((1 + self.sigma**2) ** 0.5)


def noise_level(scheduler: Any, position: int) -> NoiseLevel:
    """The level at `position` in ``scheduler.timesteps``; one past the end there is none left."""
    is_scaled = float(scheduler.init_noise_sigma) == 1.0
    return NoiseLevel(_sigma(scheduler, position), is_scaled, scheduler.config.prediction_type)


def _sigma(scheduler: Any, position: int) -> float:
    if position >= len(scheduler.timesteps):
        return 0.0
    between = getattr(scheduler, "sigmas_interpol", None)
    if between is not None and position % 2:
        return float(between[position])
    if hasattr(scheduler, "sigmas"):
        return float(scheduler.sigmas[position])
    kept = max(float(scheduler.alphas_cumprod[int(scheduler.timesteps[position])]), LEAST_KEPT)
    return float(((1 - kept) / kept) ** 0.5)
