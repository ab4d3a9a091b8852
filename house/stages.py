"""The three stages of training: autoencoder, text encoder by itself, then UNet and text encoder together."""

import math
import random
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from house import shapes
from house.architecture import (
    END_TOKEN,
    MAX_TOKENS,
    SCALING_FACTOR,
    VOCABULARY_SIZE,
    Network,
    build_scheduler,
)
from house.data import Captioner, Pictures, draw_subjects
from house.run_state import Run
from house.shapes import Combination

VAE_BATCH, VAE_RATE = 16, 2e-3
TEXT_BATCH, TEXT_RATE = 192, 3e-3
UNET_BATCH, UNET_RATE = 64, 1.2e-3
TEXT_RATE_SHARE = 0.3  # the text encoder is trained already when the UNet begins
LATENT_COUNT = 12_000
FILLER_SHARE = 0.4
DROP_SHARE = 0.12
SNR_GAMMA = 5.0  # min-SNR weighting, Hang et al. 2023
EMA_DECAY = 0.998


def learning_rate(progress: float, peak: float) -> float:
    """A twentieth of warm-up, then a cosine down to two hundredths of ``peak``."""
    warm_up = min(1.0, (progress + 1e-3) / 0.05)
    return peak * warm_up * (0.51 + 0.49 * math.cos(math.pi * progress))


def _set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("share", 1.0)


def _descend(optimizer: torch.optim.Optimizer, loss: Tensor, *networks: nn.Module) -> None:
    optimizer.zero_grad()
    loss.backward()
    for network in networks:
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimizer.step()


def _psnr(error: Tensor) -> float:
    return 10 * math.log10(4 / float(error))


def train_vae(run: Run, pictures: Pictures, total: int) -> None:
    """Trains the autoencoder, then folds its latent statistics so that the standard scaling factor holds."""
    vae = run.networks["vae"]
    optimizer = torch.optim.AdamW(vae.parameters(), lr=VAE_RATE, betas=(0.9, 0.99), weight_decay=1e-4)
    for progress in run.steps("vae", optimizer, total):
        _set_rate(optimizer, learning_rate(progress, VAE_RATE))
        truth = pictures.paint(draw_subjects(VAE_BATCH, run.rng), run.rng).to(run.device)
        with torch.autocast(run.device.type, dtype=torch.bfloat16):
            posterior = vae.encode(truth).latent_dist
            drawn = vae.decode(posterior.sample()).sample.float()
        squared = functional.mse_loss(drawn, truth)
        loss = functional.l1_loss(drawn, truth) + squared + 1e-6 * posterior.kl().mean()
        _descend(optimizer, loss, vae)
        run.report(total, {"loss": loss.detach(), "psnr": _psnr(squared.detach())})
    fold_latent_statistics(vae, _latent_means(run, pictures, 4000, seed=1)[0])
    run.finish("vae")


@torch.no_grad()
def _latent_means(run: Run, pictures: Pictures, count: int, seed: int) -> tuple[Tensor, list[Combination]]:
    # Random numbers of their own, so that a resumed run sees the same latents.
    rng = random.Random(seed)
    subjects = draw_subjects(count, rng)
    chunks = [subjects[start : start + 250] for start in range(0, count, 250)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        painted = [pictures.paint(chunk, rng).to(run.device) for chunk in chunks]
    latents = [run.networks["vae"].encode(batch).latent_dist.mean for batch in painted]
    return torch.cat(latents), subjects


@torch.no_grad()
def fold_latent_statistics(vae: Network, latents: Tensor) -> None:
    """Gives each latent channel mean 0 and deviation 1 / 0.18215 by rewriting the two 1x1 convolutions.

    ``latents`` are ``(n, 4, 8, 8)`` posterior means of the network as it stands.
    """
    mean = latents.mean((0, 2, 3))
    scale = latents.std((0, 2, 3)) * SCALING_FACTOR
    into, out_of, channels = vae.quant_conv, vae.post_quant_conv, len(mean)
    into.weight[:channels] /= scale[:, None, None, None]
    into.bias[:channels] = (into.bias[:channels] - mean) / scale
    into.bias[channels:] -= 2 * scale.log()  # the second half is the log variance
    out_of.bias += out_of.weight[:, :, 0, 0] @ mean
    out_of.weight *= scale[None, :, None, None]


def _embeddings(text_encoder: nn.Module, rows: int) -> nn.Embedding:
    found = [m for m in text_encoder.modules() if isinstance(m, nn.Embedding) and m.num_embeddings == rows]
    return found[0]


def freeze_unknown_words(text_encoder: nn.Module, known_ids: Iterable[int]) -> None:
    """Keeps the gradient away from the words which no caption uses, so that their embeddings stay zero."""
    table = _embeddings(text_encoder, VOCABULARY_SIZE).weight
    known = torch.zeros(VOCABULARY_SIZE, 1, device=table.device)
    known[list(known_ids)] = 1
    table.register_hook(lambda gradient: gradient * known)


@torch.no_grad()
def initialise_words(text_encoder: nn.Module, known_ids: Iterable[int]) -> None:
    """Zeroes unknown words; known words and positions start larger than CLIP's, since training is short."""
    table = _embeddings(text_encoder, VOCABULARY_SIZE).weight
    known = torch.zeros(VOCABULARY_SIZE, 1, device=table.device)
    known[list(known_ids)] = 4
    table.mul_(known)
    _embeddings(text_encoder, MAX_TOKENS).weight.mul_(2)


def _labels(subjects: list[Combination]) -> Tensor:
    rows = [
        (
            shapes.COLOUR_NAMES.index(subject.foreground),
            shapes.SHAPES.index(subject.shape),
            shapes.BACKGROUND_NAMES.index(subject.background),
        )
        for subject in subjects
    ]
    return torch.tensor(rows)


def train_text_encoder(run: Run, captioner: Captioner, total: int) -> None:
    """Teaches the text encoder to show the three attributes at its end token and at the padding after it."""
    encoder = run.networks["text_encoder"]
    heads = run.networks["attribute_heads"]
    if run.stage != "text":
        initialise_words(encoder, captioner.known_ids)
    parameters = [*encoder.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=TEXT_RATE, betas=(0.9, 0.99), weight_decay=0)
    for progress in run.steps("text", optimizer, total):
        _set_rate(optimizer, learning_rate(progress, TEXT_RATE))
        subjects = draw_subjects(TEXT_BATCH, run.rng)
        ids = captioner.encode(subjects, run.rng, FILLER_SHARE).to(run.device)
        states = encoder(ids)[0]
        ends = (ids == END_TOKEN).int().argmax(1)
        paddings = ends + (torch.rand(len(ends), device=run.device) * (MAX_TOKENS - ends)).long()
        seen = states[torch.arange(len(ends))[:, None], torch.stack([ends, paddings], 1)]
        labels = _labels(subjects).to(run.device)[:, :, None].expand(-1, -1, 2)
        answers = [head(seen).transpose(1, 2) for head in heads]
        losses = [functional.cross_entropy(answer, labels[:, i]) for i, answer in enumerate(answers)]
        loss = torch.stack(losses).sum()
        _descend(optimizer, loss, encoder, heads)
        right = torch.stack([answer[..., 0].argmax(1) == labels[:, i, 0] for i, answer in enumerate(answers)])
        run.report(total, {"loss": loss.detach(), "all right": right.all(0).float().mean()})
    run.networks["text_encoder_ema"].load_state_dict(encoder.state_dict())
    run.finish("text")


@torch.no_grad()
def _average(run: Run, name: str) -> None:
    # Early on the average must not remember the random start.
    decay = min(EMA_DECAY, (1 + run.step) / (10 + run.step))
    networks = run.networks[f"{name}_ema"], run.networks[name]
    for slow, fast in zip(*(network.parameters() for network in networks), strict=True):
        slow.lerp_(fast, 1 - decay)


def train_unet(run: Run, captioner: Captioner, pictures: Pictures, total: int) -> None:
    """Trains UNet and text encoder to predict the noise, with classifier-free guidance's caption dropping."""
    unet, encoder = run.networks["unet"], run.networks["text_encoder"]
    scheduler = build_scheduler()
    latents, subjects = _latent_means(run, pictures, LATENT_COUNT, seed=2)
    latents = latents * SCALING_FACTOR
    snr = scheduler.alphas_cumprod / (1 - scheduler.alphas_cumprod)
    weights = (snr.clamp(max=SNR_GAMMA) / snr).to(run.device)
    groups: list[dict[str, Any]] = [
        {"params": unet.parameters()},
        {"params": encoder.parameters(), "share": TEXT_RATE_SHARE},
    ]
    optimizer = torch.optim.AdamW(groups, lr=UNET_RATE, betas=(0.9, 0.99), weight_decay=0)
    mean_loss = 0.0
    for progress in run.steps("unet", optimizer, total):
        _set_rate(optimizer, learning_rate(progress, UNET_RATE))
        rows = torch.randint(0, len(subjects), (UNET_BATCH,))
        ids = captioner.encode([subjects[row] for row in rows.tolist()], run.rng, FILLER_SHARE, DROP_SHARE)
        times = torch.randint(0, len(snr), (UNET_BATCH,)).to(run.device)
        noise = torch.randn(latents[rows].shape).to(run.device)
        noisy = scheduler.add_noise(latents[rows], noise, times).contiguous(memory_format=torch.channels_last)
        guess = unet(noisy, times, encoder(ids.to(run.device))[0]).sample
        loss = (functional.mse_loss(guess, noise, reduction="none").mean((1, 2, 3)) * weights[times]).mean()
        _descend(optimizer, loss, unet, encoder)
        _average(run, "unet")
        _average(run, "text_encoder")
        mean_loss = 0.98 * mean_loss + 0.02 * loss.item() if mean_loss else loss.item()
        run.report(total, {"loss": mean_loss})
    run.finish("unet")
