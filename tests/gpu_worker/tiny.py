"""Tiny real models with random weights, written as single files as a trainer would."""

import json
import struct
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
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from gpu_worker import single_file_export as export
from gpu_worker.architecture import REFINER_OPEN_CLIP
from gpu_worker.loading import tokenizer
from gpu_worker.single_file_export import save_single_file

METADATA = {"sdfleet.vae_norm_num_groups": "8", "sdfleet.sample_size": "8"}


def text_config(**changes: Any) -> CLIPTextConfig:
    values = {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 1,
        "projection_dim": 64,
        "eos_token_id": 49407,
        "bos_token_id": 49406,
    }
    return CLIPTextConfig(**values | changes)


def unet(**changes: Any) -> UNet2DConditionModel:
    values: dict[str, Any] = {
        "block_out_channels": (32, 64),
        "layers_per_block": 1,
        "sample_size": 8,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "cross_attention_dim": 64,
        "attention_head_dim": 8,
    }
    return UNet2DConditionModel(**values | changes)


def vae(seed: int = 0) -> AutoencoderKL:
    torch.manual_seed(seed)
    return AutoencoderKL(
        block_out_channels=[16, 16, 32, 32],
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        latent_channels=4,
        norm_num_groups=8,
    )


def scheduler() -> DDIMScheduler:
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def sd1_pipeline(seed: int = 0) -> StableDiffusionPipeline:
    torch.manual_seed(seed)
    return StableDiffusionPipeline(
        vae=vae(seed),
        text_encoder=CLIPTextModel(text_config()),
        tokenizer=tokenizer(),
        unet=unet(),
        scheduler=scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def xl_pipeline() -> StableDiffusionXLPipeline:
    torch.manual_seed(0)
    wide = text_config(hidden_size=128, num_attention_heads=2, hidden_act="gelu", projection_dim=80)
    return StableDiffusionXLPipeline(
        vae=vae(),
        text_encoder=CLIPTextModel(text_config()),
        text_encoder_2=CLIPTextModelWithProjection(wide),
        tokenizer=tokenizer(),
        tokenizer_2=tokenizer("!"),
        unet=unet(
            block_out_channels=(32, 64, 128),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=(1, 1, 2),
            attention_head_dim=(1, 1, 2),
            cross_attention_dim=64 + 128,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=16,
            projection_class_embeddings_input_dim=80 + 6 * 16,
        ),
        scheduler=scheduler(),
        add_watermarker=False,
    )


def write_refiner(path: Path) -> Path:
    """SDXL's refiner: OpenCLIP's text encoder alone, and five numbers beside the prompt."""
    torch.manual_seed(2)
    wide = text_config(hidden_size=128, num_attention_heads=2, hidden_act="gelu", projection_dim=80)
    network = unet(
        block_out_channels=(32, 64),
        cross_attention_dim=128,
        attention_head_dim=(1, 1),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=16,
        projection_class_embeddings_input_dim=80 + 5 * 16,
    )
    tensors = export.convert_unet(network) | export.convert_vae(vae())
    tensors |= export.convert_open_clip(CLIPTextModelWithProjection(wide), REFINER_OPEN_CLIP)
    save_file({key: tensor.half().contiguous() for key, tensor in tensors.items()}, path, metadata=METADATA)
    return path


def write_sd2(
    path: Path,
    metadata: dict[str, str] | None = None,
    extra: tuple[str, ...] = (),
    answer: float | None = None,
) -> Path:
    """SD 2.x: OpenCLIP's text encoder alone; with `answer` the UNet says nothing but that."""
    torch.manual_seed(3)
    text = CLIPTextModelWithProjection(text_config(hidden_act="gelu"))
    network: Any = unet(use_linear_projection=True, attention_head_dim=(1, 1))
    if answer is not None:
        with torch.no_grad():
            network.conv_out.weight.zero_()
            network.conv_out.bias.fill_(answer)
    tensors = export.convert_unet(network) | export.convert_vae(vae())
    tensors |= export.convert_open_clip(text, "cond_stage_model.model.")
    tensors |= {key: torch.zeros(1) for key in extra}
    halves = {key: tensor.half().contiguous() for key, tensor in tensors.items()}
    save_file(halves, path, metadata=METADATA | (metadata or {}))
    return path


def write_sd1(path: Path, seed: int = 0) -> Path:
    save_single_file(sd1_pipeline(seed), path, dtype=torch.float16, metadata=METADATA)
    return path


def write_xl(path: Path) -> Path:
    save_single_file(xl_pipeline(), path, dtype=torch.float16, metadata=METADATA)
    return path


def rewrite(source: Path, target: Path, change: Any, metadata: dict[str, str] | None = None) -> Path:
    """Writes a copy whose tensors `change(tensors)` has altered in place."""
    tensors = load_file(source)
    change(tensors)
    save_file(tensors, target, metadata=metadata or METADATA)
    return target


def with_header(path: Path, header: Any, data: bytes = b"", length: int | None = None) -> Path:
    """Writes a file with any header, true or not."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path
