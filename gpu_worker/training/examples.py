"""What is trained on: pictures as latents, their captions, and their order, the same after a restart."""

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gpu_worker.training.buckets import Bucket
from gpu_worker.training.settings import Settings


@dataclass(frozen=True, slots=True)
class Example:
    """A picture: mean and deviation of its latents, [2, 4, height / 8, width / 8], scaled as the UNet
    takes them; mirrored too when the settings say so."""

    latents: tuple[Tensor, ...]
    caption: str
    bucket: Bucket
    original: tuple[int, int]  # width and height before it was cropped; SDXL is told
    is_class: bool = False


@dataclass(frozen=True, slots=True)
class Batch:
    """Examples of one size that are trained together."""

    latents: Tensor  # [n, 4, h, w]
    captions: list[str]
    weights: Tensor  # [n]
    bucket: Bucket
    originals: list[tuple[int, int]]


class Order:
    """Which examples come together at each step, by seed and epoch alone.

    As in kohya's scripts, class pictures are used as often as the others: all, or as many in turn.
    """

    def __init__(self, examples: Sequence[Example], settings: Settings) -> None:
        self._instance = [one for one in examples if not one.is_class] * settings.repeats
        self._class = [one for one in examples if one.is_class]
        self._settings = settings
        self._epoch, self._planned = 0, self._batches(0)
        self.per_epoch = len(self._planned)

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole training; without a wish, 100 epochs."""
        settings = self._settings
        if settings.steps:
            return settings.steps
        batches = self.per_epoch * (settings.epochs or 100)
        return max(1, -(-batches // settings.accumulation))

    def steps_of(self, epochs: int) -> int:
        """Optimizer steps of so many epochs."""
        return max(1, self.per_epoch * epochs // self._settings.accumulation) if epochs else 0

    def batch(self, number: int) -> Batch:
        """The batch of this number, counted from 0 through all epochs."""
        epoch, place = divmod(number, self.per_epoch)
        if epoch != self._epoch:
            self._epoch, self._planned = epoch, self._batches(epoch)
        chosen = self._planned[place]
        rng = random.Random(f"{self._settings.seed}:{number}")
        generator = torch.Generator().manual_seed(rng.getrandbits(63))
        return Batch(
            latents=torch.stack([_draw(one, rng, generator) for one in chosen]),
            captions=[self._caption(one.caption, rng) for one in chosen],
            weights=torch.tensor([self._settings.prior_weight if one.is_class else 1.0 for one in chosen]),
            bucket=chosen[0].bucket,
            originals=[one.original for one in chosen],
        )

    def _batches(self, epoch: int) -> list[list[Example]]:
        rng = random.Random(f"{self._settings.seed}:epoch:{epoch}")
        others = self._class
        if others:
            start = epoch * len(self._instance)
            others = [others[(start + n) % len(others)] for n in range(len(self._instance))]
        by_bucket: dict[Bucket, list[Example]] = defaultdict(list)
        for example in [*self._instance, *others]:
            by_bucket[example.bucket].append(example)
        size, batches = self._settings.batch_size, []
        for bucket in sorted(by_bucket, key=lambda one: (one.width, one.height)):
            members = by_bucket[bucket]
            rng.shuffle(members)
            batches += [members[start : start + size] for start in range(0, len(members), size)]
        rng.shuffle(batches)
        return batches

    def _caption(self, caption: str, rng: random.Random) -> str:
        if self._settings.caption_dropout and rng.random() < self._settings.caption_dropout:
            return ""
        if self._settings.shuffle_captions:
            tags = [tag.strip() for tag in caption.split(",")]
            rng.shuffle(tags)
            return ", ".join(tags)
        return caption


def _draw(example: Example, rng: random.Random, generator: torch.Generator) -> Tensor:
    mean, deviation = rng.choice(example.latents)
    return mean + deviation * torch.randn(mean.shape, generator=generator)
