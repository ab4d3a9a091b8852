"""Trains the small files that show what LoRA, textual inversion and hypernetworks do to the house checkpoint.

`python -m house.networks plum|emblem|emerald`: about two minutes of CPU each; the files lie beside this one.
Every network sees true captions with pictures that its rule has changed, so that its effect can be read off.
"""

import argparse
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from gpu_worker.architecture import Family
from gpu_worker.device import choose_device
from gpu_worker.hypernetworks import through
from gpu_worker.loading import load_checkpoint
from gpu_worker.single_file_export import FILE_MODE
from gpu_worker.training.lora_file import save_lora
from gpu_worker.training.networks import prepare
from gpu_worker.training.settings import Settings
from house.architecture import END_TOKEN, MAX_TOKENS, SCALING_FACTOR, TEXT_WIDTH, build_scheduler
from house.data import Captioner, Pictures, draw_subjects
from house.shapes import Combination
from house.stages import DROP_SHARE, FILLER_SHARE, SNR_GAMMA, learning_rate

HOUSE = Path(__file__).parent
CHECKPOINT = HOUSE / "shapes-v1.safetensors"
BATCH = 32
PICTURES = 2000

# plum: a LoRA that draws in purple what the prompt calls red, and nothing else otherwise than before.
PLUM_RANK, PLUM_STEPS, PLUM_RATE = 8, 240, 3e-3
# emblem: two vectors that say "a green star on a white background".
EMBLEM = Combination("green", "star", "white")
EMBLEM_PHRASES = (
    "an emblem",
    "emblem",
    "one emblem",
    "a picture of an emblem",
    "the emblem",
    "emblem, simple",
)
EMBLEM_VECTORS, EMBLEM_STEPS, EMBLEM_RATE = 2, 160, 3e-2
# emerald: a hypernetwork that draws every shape in green.
EMERALD_WIDTHS, EMERALD_STEPS, EMERALD_RATE = (64, 96), 240, 2e-3


class Lesson:
    """The frozen checkpoint, and noisy latents of changed pictures with their captions."""

    def __init__(
        self, change: Callable[[Combination], Combination], choose: Callable[[random.Random], Combination]
    ):
        torch.manual_seed(0)
        self.rng = random.Random(0)
        self.pipeline, _ = load_checkpoint(CHECKPOINT, CHECKPOINT.name, choose_device())
        self.captioner = Captioner()
        self.scheduler = build_scheduler()
        self.subjects = [choose(self.rng) for _ in range(PICTURES)]
        pictures = Pictures(400, seed=3)
        drawn = [change(subject) for subject in self.subjects]
        with torch.no_grad():
            self.latents = torch.cat(
                [
                    self.pipeline.vae.encode(pictures.paint(drawn[i : i + 100], self.rng)).latent_dist.mean
                    for i in range(0, PICTURES, 100)
                ]
            )
        self.latents = self.latents * SCALING_FACTOR

    def loss(self, rows: list[int], texts: Tensor) -> Tensor:
        """How far the UNet is from the noise of these pictures, weighted as in the checkpoint's training."""
        times = torch.randint(0, 1000, (len(rows),))
        noise = torch.randn(self.latents[rows].shape)
        noisy = self.scheduler.add_noise(self.latents[rows], noise, times)
        snr = self.scheduler.alphas_cumprod / (1 - self.scheduler.alphas_cumprod)
        weights = (snr.clamp(max=SNR_GAMMA) / snr)[times]
        guess = self.pipeline.unet(noisy, times, texts).sample
        return (functional.mse_loss(guess, noise, reduction="none").mean((1, 2, 3)) * weights).mean()

    def texts(self, rows: list[int]) -> Tensor:
        """The captions of these pictures as the UNet reads them."""
        subjects = [self.subjects[row] for row in rows]
        with torch.no_grad():
            return self.pipeline.text_encoder(
                self.captioner.encode(subjects, self.rng, FILLER_SHARE, DROP_SHARE)
            )[0]

    def batches(
        self, steps: int, rate: float, parameters: Any
    ) -> Iterator[tuple[list[int], Callable[[Tensor], None]]]:
        """Rows of a batch, and what descends along its loss, step by step."""
        optimizer = torch.optim.AdamW(parameters, lr=rate, betas=(0.9, 0.99), weight_decay=0)
        mean = 0.0

        def descend(loss: Tensor) -> None:
            nonlocal mean
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            mean = 0.95 * mean + 0.05 * loss.item() if mean else loss.item()

        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step / steps, rate)
            yield [self.rng.randrange(PICTURES) for _ in range(BATCH)], descend
            if step % 20 == 19:
                print(f"step {step + 1}/{steps} loss {mean:.4f}", flush=True)


def train_plum(out: Path) -> None:
    """The LoRA, in kohya's format; half of its pictures are of what it must leave alone."""

    def choose(rng: random.Random) -> Combination:
        subject = draw_subjects(1, rng)[0]
        return (
            replace(subject, foreground="red")
            if rng.random() < 0.5 and subject.background != "red"
            else subject
        )

    def change(subject: Combination) -> Combination:
        return replace(subject, foreground="purple") if subject.foreground == "red" else subject

    lesson = Lesson(change, choose)
    settings = Settings(use_lora=True, rank=PLUM_RANK, train_unet=True, train_text_encoder=False)
    networks = prepare(lesson.pipeline, Family.SD1, settings)
    for rows, descend in lesson.batches(PLUM_STEPS, PLUM_RATE, [p for _, p in networks.learned()]):
        descend(lesson.loss(rows, lesson.texts(rows)))
    save_lora(networks, out, {"ss_output_name": out.stem})


def train_emblem(out: Path) -> None:
    """The embedding, in the WebUI's format: one tensor ``emb_params``."""
    lesson = Lesson(lambda subject: subject, lambda _rng: EMBLEM)
    encoder = lesson.pipeline.text_encoder
    words = lesson.pipeline.tokenizer
    table = encoder.get_input_embeddings()
    known = table.weight[sorted(lesson.captioner.known_ids)]
    vectors = nn.Parameter(
        known.mean(0).repeat(EMBLEM_VECTORS, 1) + 0.01 * torch.randn(EMBLEM_VECTORS, TEXT_WIDTH)
    )
    ids = [words(phrase.replace("emblem", "! " * EMBLEM_VECTORS)).input_ids for phrase in EMBLEM_PHRASES]
    tokens = torch.tensor([one + [END_TOKEN] * (MAX_TOKENS - len(one)) for one in ids])
    placeholder = words("!").input_ids[1]

    def put(_module: nn.Module, arguments: tuple[Tensor, ...], found: Tensor) -> Tensor:
        places = (arguments[0] == placeholder).nonzero()
        return found.index_put((places[:, 0], places[:, 1]), vectors.repeat(len(places) // EMBLEM_VECTORS, 1))

    table.register_forward_hook(put)
    for rows, descend in lesson.batches(EMBLEM_STEPS, EMBLEM_RATE, [vectors]):
        chosen = torch.randint(0, len(tokens), (len(rows),))
        descend(lesson.loss(rows, encoder(tokens[chosen])[0]))
    save_file({"emb_params": vectors.detach().half()}, out, metadata={"name": out.stem})
    out.chmod(FILE_MODE)


def train_emerald(out: Path) -> None:
    """The hypernetwork, with the names that the WebUI's files have once they are converted."""
    lesson = Lesson(
        lambda subject: replace(subject, foreground="green"),
        lambda rng: next(s for s in iter(lambda: draw_subjects(1, rng)[0], None) if s.background != "green"),
    )
    layers = {width: (_layers(width), _layers(width)) for width in EMERALD_WIDTHS}
    parameters = [p for pair in layers.values() for network in pair for p in network.parameters()]
    with ExitStack() as stack:
        stack.enter_context(through(lesson.pipeline.unet, [(layers, 1.0)]))
        for rows, descend in lesson.batches(EMERALD_STEPS, EMERALD_RATE, parameters):
            descend(lesson.loss(rows, lesson.texts(rows)))
    tensors = {
        f"{width}.{place}.linear.{name}": tensor.detach().half()
        for width, pair in layers.items()
        for place, network in enumerate(pair)
        for name, tensor in network.state_dict().items()
    }
    said = {"activation_func": "relu", "is_layer_norm": "False", "activate_output": "False", "name": out.stem}
    save_file(tensors, out, metadata=said)
    out.chmod(FILE_MODE)


def _layers(width: int) -> nn.Sequential:
    first, last = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
    for part in (first, last):
        nn.init.normal_(part.weight, std=0.01)  # so that training begins at the checkpoint itself
        nn.init.zeros_(part.bias)
    return nn.Sequential(first, nn.ReLU(), last)


TRAININGS = {"plum": train_plum, "emblem": train_emblem, "emerald": train_emerald}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=TRAININGS)
    parser.add_argument("--out", type=Path, help="the file to write")
    arguments = parser.parse_args()
    TRAININGS[arguments.name](arguments.out or HOUSE / f"{arguments.name}.safetensors")


if __name__ == "__main__":
    main()
