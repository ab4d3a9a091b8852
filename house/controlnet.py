"""Trains the house ControlNet: white edges on black say where the shape is, whatever the words leave open.

``python -m house.controlnet [--steps N] [--out FILE]``; about twenty minutes on one core.
"""

import argparse
import random
import time
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import torch
from diffusers import ControlNetModel, DDPMScheduler, StableDiffusionControlNetPipeline
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.nn import functional

from gpu_worker.device import choose_device
from gpu_worker.loading import load_checkpoint
from house import shapes
from house.shapes import Combination

FILE = Path(__file__).parent / "edges-v1.safetensors"
CHECKPOINT = Path(__file__).parent / "shapes-v1.safetensors"
HINT_CHANNELS = (8, 16, 32, 48)
BATCH = 48
BANK = 4096
STEPS = 1200
RATE = 1e-3
LEAST_TIME = 250
MOST_WEIGHT = 50.0
FIRST_HINT = 0.1
SEEN_EVERY = 100
SEEN = 12
# Words that name the shape, its colours alone, or nothing: with less to go by, the edges must be looked at.
WORDLESS_SHARE = 0.2
SHAPELESS_SHARE = 0.6


def edges(picture: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The map of an RGB picture, ``(height, width)``: what the preprocessor ``canny`` makes of it."""
    return np.asarray(cv2.Canny(np.ascontiguousarray(picture), 100, 200))


def outline(mask: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The whole outline of a shape, also where its colours would be too close to each other for Canny."""
    return edges(shapes.paint(mask, "white", "black"))


def overlap(picture: Image.Image, mask: np.ndarray[Any, Any]) -> float:
    """Intersection over union of what stands out from the picture's background with a shape's mask."""
    small = picture.convert("RGB").resize((shapes.SIZE, shapes.SIZE), Image.Resampling.BOX)
    seen = np.asarray(small, dtype=np.int64)
    back = np.median(np.concatenate([seen[:2].reshape(-1, 3), seen[-2:].reshape(-1, 3)]), axis=0)
    distance = np.sqrt(np.square(seen - back).sum(-1))
    found, wanted = distance > distance.max() / 2, mask > 127
    return float((found & wanted).sum() / (found | wanted).sum())


def _words(what: Combination, rng: random.Random) -> str:
    drawn = rng.random()
    if drawn < WORDLESS_SHARE:
        return ""
    if drawn < WORDLESS_SHARE + SHAPELESS_SHARE:
        return f"{what.foreground} on a {what.background} background"
    return shapes.caption(what, rng)


@torch.no_grad()
def _bank(pipeline: Any, rng: random.Random) -> dict[str, torch.Tensor]:
    """Clean latents, texts and edges of random drawings."""
    subjects = [rng.choice(shapes.TRAINING) for _ in range(BANK)]
    masks = [shapes.random_mask(what.shape, rng) for what in subjects]
    drawn = [
        shapes.paint(mask, what.foreground, what.background)
        for mask, what in zip(masks, subjects, strict=True)
    ]
    pixels = torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2).float() / 127.5 - 1
    latents = torch.cat([pipeline.vae.encode(part).latent_dist.mode() for part in pixels.split(64)])
    tokens = pipeline.tokenizer(
        [_words(what, rng) for what in subjects], padding="max_length", max_length=77, return_tensors="pt"
    ).input_ids
    texts = torch.cat([pipeline.text_encoder(part)[0] for part in tokens.split(64)])
    hints = torch.from_numpy(np.stack([outline(mask) for mask in masks])).float() / 255
    return {"latents": latents * pipeline.vae.config.scaling_factor, "texts": texts, "hints": hints[:, None]}


def _loss(model: Any, unet: Any, noise_schedule: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """How far the held UNet is from the pictures of a batch, at random times."""
    # Where the shape goes is decided while there is much noise.
    times = torch.randint(LEAST_TIME, 1000, (BATCH,))
    noise = torch.randn_like(batch["latents"])
    noisy = noise_schedule.add_noise(batch["latents"], noise, times)
    texts, hint = batch["texts"], batch["hints"].expand(-1, 3, -1, -1)
    down, middle = model(noisy, times, encoder_hidden_states=texts, controlnet_cond=hint, return_dict=False)
    predicted = unet(
        noisy,
        times,
        encoder_hidden_states=texts,
        down_block_additional_residuals=down,
        mid_block_additional_residual=middle,
    ).sample
    # An error of the noise is a large one of the picture where there is little picture left.
    kept = noise_schedule.alphas_cumprod[times]
    weights = ((1 - kept) / kept).clamp(max=MOST_WEIGHT)[:, None, None, None]
    return (weights * functional.mse_loss(predicted, noise, reduction="none")).mean()


@torch.no_grad()
def seen_overlap(pipeline: Any, model: Any, seed: int = 2) -> float:
    """Mean overlap of pictures with outlines that training did not draw; the words leave the shape open."""
    rng = random.Random(seed)
    subjects = [rng.choice(shapes.TRAINING) for _ in range(SEEN)]
    masks = [shapes.random_mask(what.shape, rng) for what in subjects]
    hints = torch.from_numpy(np.stack([outline(mask) for mask in masks])).float() / 255
    pipeline_class = cast("Any", StableDiffusionControlNetPipeline)
    painter = pipeline_class(**pipeline.components, controlnet=model.eval())
    painter.set_progress_bar_config(disable=True)
    made = painter(
        [f"{what.foreground} on a {what.background} background" for what in subjects],
        image=hints[:, None].expand(-1, 3, -1, -1),
        num_inference_steps=10,
        guidance_scale=5.0,
        generator=torch.Generator().manual_seed(seed),
    ).images
    model.train()
    return float(np.mean([overlap(picture, mask) for picture, mask in zip(made, masks, strict=True)]))


def train(steps: int, out: Path, start: Path | None = None, seed: int = 1) -> None:
    """Trains into `out`, which is written now and then; from the beginning or from a file of a former run."""
    torch.manual_seed(seed)
    rng = random.Random(seed)
    pipeline, _ = load_checkpoint(CHECKPOINT, CHECKPOINT.name, choose_device())
    unet = pipeline.unet
    model = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=HINT_CHANNELS)
    if start is not None:
        model.load_state_dict({name: tensor.float() for name, tensor in load_file(start).items()})
    else:
        # Of two zeroed layers in a row neither learns: one begins with something.
        torch.nn.init.normal_(model.controlnet_cond_embedding.conv_out.weight, std=FIRST_HINT)
    model.requires_grad_(True).train()
    noise_schedule: Any = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=1e-2)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps, pct_start=0.1)
    bank = _bank(pipeline, rng)
    began = time.monotonic()
    for step in range(steps):
        chosen = torch.randint(BANK, (BATCH,))
        loss = _loss(model, unet, noise_schedule, {name: rows[chosen] for name, rows in bank.items()})
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        rates.step()
        if step % 25 == 0 or step == steps - 1:
            print(f"step {step} loss {loss.item():.4f} after {time.monotonic() - began:.0f} s", flush=True)
        if step % SEEN_EVERY == 0 or step == steps - 1:
            print(f"overlap {seen_overlap(pipeline, model):.3f}", flush=True)
            save(model, out)


def save(model: Any, path: Path) -> None:
    """Writes the network in half precision, under diffusers' names."""
    tensors = {name: tensor.detach().half().contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, path)
    path.chmod(0o644)  # safetensors leaves 0600


def main() -> None:
    """Trains and saves."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--out", type=Path, default=FILE)
    parser.add_argument("--start", type=Path, help="goes on from this file of a former run")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    train(arguments.steps, arguments.out, arguments.start, arguments.seed)


if __name__ == "__main__":
    main()
