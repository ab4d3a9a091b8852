"""Models of the size of SD 1.5 and SDXL with random weights on a GPU: seconds for a picture, and memory.

``python -m bench.engine_gpu`` prints the figures alone; without a GPU it says so.
"""

import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from gpu_worker.device import Device, choose_device
from gpu_worker.generation import generate
from gpu_worker.loading import load_checkpoint, tokenizer
from gpu_worker.pipelines import LoadedCheckpoint
from gpu_worker.plan import ImageRequest, Plan
from gpu_worker.samplers import choose_sampling
from gpu_worker.single_file_export import save_single_file

Make = Callable[[], Any]
BATCHES = (1, 4, 8)
# Name, how it is made, side of the picture, steps.
CASES: tuple[tuple[str, str, int, int], ...] = (
    ("sd15", "sd15", 512, 20),
    ("sd15", "sd15", 512, 30),
    ("sdxl", "sdxl", 1024, 20),
    ("sdxl", "sdxl", 1024, 30),
)
VAE_WIDTHS = (128, 256, 512, 512)


def run(
    device: Device | None = None, scale: int = 1, cases: Sequence[tuple[str, str, int, int]] = CASES
) -> Any:
    """Figures of every case; `scale` divides the widths of the models, for a try without a GPU."""
    device = device or choose_device()
    with tempfile.TemporaryDirectory(prefix="sdfleet-bench-") as folder:
        paths = {
            name: _written(name, Path(folder), scale) for name in dict.fromkeys(case[1] for case in cases)
        }
        figures = []
        for compiled in (False, True):
            chosen = replace(device, is_compiled=compiled)
            for kind, path in paths.items():
                loaded, seconds = _loaded(path, chosen)
                for name, _, side, steps in (case for case in cases if case[1] == kind):
                    for batch in BATCHES:
                        row = _measure(loaded, chosen, side, steps, batch)
                        figures.append(
                            {
                                "model": name,
                                "side": side,
                                "steps": steps,
                                "batch": batch,
                                "compiled": compiled,
                            }
                            | row
                            | {"load_seconds": round(seconds, 2)}
                        )
                del loaded
                _empty()
    return figures


def _measure(loaded: LoadedCheckpoint, device: Device, side: int, steps: int, batch: int) -> dict[str, Any]:
    """Seconds for a picture in the second of two batches, and the most memory that it took."""
    plan = Plan(choose_sampling("DPM++ 2M", "Karras"), steps=steps, cfg_scale=7, width=side, height=side)
    requests = [ImageRequest("a red circle on a white background", "", seed) for seed in range(batch)]
    seconds = 0.0
    for _turn in range(2):
        if device.is_cuda:
            torch.cuda.reset_peak_memory_stats()
            torch.cuda.synchronize()
        began = time.perf_counter()
        generate(loaded, loaded.pipeline.vae, requests, plan)
        seconds = time.perf_counter() - began
    most = torch.cuda.max_memory_allocated() / 2**30 if device.is_cuda else 0.0
    return {"seconds_per_picture": round(seconds / batch, 3), "peak_memory_gb": round(most, 2)}


def _loaded(path: Path, device: Device) -> tuple[LoadedCheckpoint, float]:
    began = time.perf_counter()
    pipeline, description = load_checkpoint(path, path.name, device)
    if device.is_cuda:
        torch.cuda.synchronize()
    return LoadedCheckpoint(path.name, pipeline, description, "0" * 10), time.perf_counter() - began


def _written(kind: str, folder: Path, scale: int) -> Path:
    """A single file with random weights, as a trainer would write it."""
    path = folder / f"{kind}.safetensors"
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        pipeline = sdxl(scale) if kind == "sdxl" else sd15(scale)
    save_single_file(pipeline, path, dtype=torch.float16)
    del pipeline
    _empty()
    return path


def sd15(scale: int) -> StableDiffusionPipeline:
    """The configuration of Stable Diffusion 1.5 (its published ``config.json`` files)."""
    return StableDiffusionPipeline(
        vae=_vae(),
        text_encoder=CLIPTextModel(_clip_l()),
        tokenizer=tokenizer(),
        unet=UNet2DConditionModel(
            block_out_channels=[width // scale for width in (320, 640, 1280, 1280)],
            cross_attention_dim=768,
            attention_head_dim=8,
            sample_size=64,
        ),
        scheduler=_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def sdxl(scale: int) -> StableDiffusionXLPipeline:
    """The configuration of SDXL base 1.0 (its published ``config.json`` files)."""
    open_clip = CLIPTextConfig(
        hidden_size=1280,
        intermediate_size=5120,
        num_hidden_layers=32,
        num_attention_heads=20,
        hidden_act="gelu",
        projection_dim=1280,
        eos_token_id=49407,
        bos_token_id=49406,
    )
    widths = [width // scale for width in (320, 640, 1280)]
    return StableDiffusionXLPipeline(
        vae=_vae(),
        text_encoder=CLIPTextModel(_clip_l()),
        text_encoder_2=CLIPTextModelWithProjection(open_clip),
        tokenizer=tokenizer(),
        tokenizer_2=tokenizer("!"),
        unet=UNet2DConditionModel(
            block_out_channels=widths,
            down_block_types=["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
            up_block_types=["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
            transformer_layers_per_block=[1, 2, 10],
            attention_head_dim=[width // 64 for width in widths],
            cross_attention_dim=2048,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=2816,
            sample_size=128,
        ),
        scheduler=_scheduler(),
        add_watermarker=False,
    )


def _clip_l() -> CLIPTextConfig:
    return CLIPTextConfig(
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        projection_dim=768,
        eos_token_id=49407,
        bos_token_id=49406,
    )


def _vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=VAE_WIDTHS,
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        latent_channels=4,
        layers_per_block=2,
    )


def _scheduler() -> DDIMScheduler:
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def _empty() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


if __name__ == "__main__":
    chosen = choose_device()
    print(json.dumps(run(chosen) if chosen.is_cuda else "skipped: there is no GPU here"))
