"""The training itself: noise, prediction, loss, step; the order of things is told by the settings alone.

The loss is that of Ho et al. 2020 (arXiv 2006.11239), weighted by min-SNR (Hang et al. 2023, arXiv
2303.09556) when `min_snr_gamma` is set; noise offset after Guttenberg 2023 (crosslabs.org).
"""

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from diffusers import DDPMScheduler
from diffusers.optimization import get_scheduler
from torch import Tensor

from gpu_worker.architecture import Family
from gpu_worker.errors import RequestFault
from gpu_worker.training.examples import Batch, Example, Order
from gpu_worker.training.networks import Networks, encode_text
from gpu_worker.training.settings import Settings
from gpu_worker.training.state import Learning

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "AdamW": torch.optim.AdamW,
    "Adam": torch.optim.Adam,
}
MOST_TEXTS = 500  # SDXL: 0.6 MB each
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


class Watcher(Protocol):
    """Who is told of every step; any call may raise `Dropped`."""

    def stepped(self, learning: Learning, total: int, loss: float) -> None:
        """A step is done: time to report, to save and to make samples."""

    def wants_end(self) -> bool:
        """Whether the training is to end before its last step, with what it has learned."""


@dataclass(slots=True)
class Trainer:
    """One training in memory."""

    learning: Learning
    order: Order
    settings: Settings
    noise: Any  # DDPMScheduler
    device: torch.device
    texts: dict[str, tuple[Tensor, Tensor | None]]

    def run(self, watcher: Watcher) -> None:
        """Trains to the last step, or until the watcher wants the end."""
        total = self.order.total_steps
        while self.learning.step < total and not watcher.wants_end():
            loss = self._step()
            if not math.isfinite(loss):
                raise RequestFault(
                    f"the training diverged at step {self.learning.step}: the loss is no finite number; "
                    "try a lower learning rate"
                )
            watcher.stepped(self.learning, total, loss)

    def _step(self) -> float:
        learning, settings = self.learning, self.settings
        learning.optimizer.zero_grad(set_to_none=True)
        losses = []
        for place in range(settings.accumulation):
            number = learning.step * settings.accumulation + place
            loss = self._loss(self.order.batch(number), number)
            learning.scaler.scale(loss / settings.accumulation).backward()
            losses.append(float(loss.detach()))
        if settings.max_grad_norm:
            learning.scaler.unscale_(learning.optimizer)
            learned = [tensor for _, tensor in learning.networks.learned()]
            torch.nn.utils.clip_grad_norm_(learned, settings.max_grad_norm)
        learning.scaler.step(learning.optimizer)
        learning.scaler.update()
        learning.schedule.step()
        learning.step += 1
        return sum(losses) / len(losses)

    def _loss(self, batch: Batch, number: int) -> Tensor:
        seed = (self.settings.seed << 24) + number
        torch.manual_seed(seed)  # dropout is the same after a restart too
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(batch.latents.shape, generator=generator)
        if self.settings.noise_offset:
            shape = (*batch.latents.shape[:2], 1, 1)
            noise = noise + self.settings.noise_offset * torch.randn(shape, generator=generator)
        times = torch.randint(0, self.noise.config.num_train_timesteps, (len(noise),), generator=generator)
        noise, times = noise.to(self.device), times.to(self.device)
        latents = batch.latents.to(self.device)
        with self._precision():
            predicted = self._predict(self.noise.add_noise(latents, noise, times), times, batch)
        wanted = noise
        if self.noise.config.prediction_type == "v_prediction":
            wanted = self.noise.get_velocity(latents, noise, times)
        each = torch.nn.functional.mse_loss(predicted.float(), wanted, reduction="none").mean((1, 2, 3))
        return (each * self._weights(times) * batch.weights.to(self.device)).mean()

    def _weights(self, times: Tensor) -> Tensor:
        gamma = self.settings.min_snr_gamma
        if not gamma:
            return torch.ones(len(times), device=self.device)
        signal = self.noise.alphas_cumprod.to(self.device)[times]
        ratio = signal / (1 - signal)
        least = torch.clamp(ratio, max=gamma)
        if self.noise.config.prediction_type == "v_prediction":
            return least / (ratio + 1)
        return least / ratio

    def _predict(self, noisy: Tensor, times: Tensor, batch: Batch) -> Tensor:
        texts, pooled = self._encoded(batch.captions)
        more: dict[str, Any] = {}
        if pooled is not None:
            size = (batch.bucket.height, batch.bucket.width)
            ids = [[*reversed(original), 0, 0, *size] for original in batch.originals]
            more["added_cond_kwargs"] = {
                "text_embeds": pooled,
                "time_ids": torch.tensor(ids, device=self.device, dtype=texts.dtype),
            }
        unet = self.learning.networks.unet
        if self.settings.mixed_precision == "no":
            noisy, texts = noisy.to(unet.dtype), texts.to(unet.dtype)
        result: Tensor = unet(noisy, times, texts, **more).sample
        return result

    def _encoded(self, captions: list[str]) -> tuple[Tensor, Tensor | None]:
        networks = self.learning.networks
        if self.settings.train_text_encoder:
            return encode_text(networks, captions)
        found = [self._remembered(caption) for caption in captions]
        pooled = [one for _, one in found if one is not None]
        return torch.cat([text for text, _ in found]), torch.cat(pooled) if pooled else None

    def _remembered(self, caption: str) -> tuple[Tensor, Tensor | None]:
        """Text encoders that do not learn say the same again; shuffled captions are ever new ones."""
        if caption not in self.texts:
            if len(self.texts) >= MOST_TEXTS:
                del self.texts[next(iter(self.texts))]
            with torch.no_grad():
                self.texts[caption] = encode_text(self.learning.networks, [caption])
        return self.texts[caption]

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        if self.settings.mixed_precision == "no":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, DTYPES[self.settings.mixed_precision])


def make_trainer(
    networks: Networks, examples: Sequence[Example], settings: Settings, device: torch.device
) -> Trainer:
    """A trainer at step 0."""
    order = Order(examples, settings)
    groups = networks.parameters()
    if settings.optimizer == "SGD":
        optimizer: torch.optim.Optimizer = torch.optim.SGD(
            groups, momentum=settings.beta1, weight_decay=settings.weight_decay
        )
    else:
        optimizer = OPTIMIZERS[settings.optimizer](
            groups,
            betas=(settings.beta1, settings.beta2),
            eps=settings.epsilon,
            weight_decay=settings.weight_decay,
        )
    schedule = get_scheduler(
        settings.scheduler,
        optimizer,
        num_warmup_steps=settings.warmup_steps,
        num_training_steps=order.total_steps,
        num_cycles=settings.cycles,
        power=settings.power,
    )
    scaler = torch.amp.GradScaler(device.type, enabled=settings.mixed_precision == "fp16")
    noise = DDPMScheduler.from_config(networks.pipeline.scheduler.config)
    if networks.family is Family.SD2 and settings.clip_skip:
        raise RequestFault("config_params.clip_skip is not possible for Stable Diffusion 2.x")
    return Trainer(Learning(networks, optimizer, schedule, scaler), order, settings, noise, device, {})
