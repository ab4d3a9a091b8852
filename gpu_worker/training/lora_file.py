"""LoRA layers as one safetensors file with kohya's names, which every Stable Diffusion program reads."""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from gpu_worker.architecture import Family
from gpu_worker.training.networks import ADAPTER, SAVED_AS, Networks

FILE_MODE = 0o644
PART = re.compile(rf"(.+)\.lora_(A|B)\.{ADAPTER}\.weight")
SIDES = {"A": "lora_down", "B": "lora_up"}
BASE_VERSIONS = {Family.SD1: "sd_v1", Family.SD2: "sd_v2", Family.SDXL: "sdxl_base_v1-0"}


def kohya_tensors(networks: Networks, dtype: torch.dtype = torch.float16) -> dict[str, Tensor]:
    """The learned layers, [out, in] and [in] as in the networks, with alpha beside each."""
    tensors: dict[str, Tensor] = {}
    for name, parameter in networks.learned():
        network, _, path = name.partition(".")
        match = PART.fullmatch(path)
        if match is None:
            raise ValueError(f"{name} is no part of a LoRA")
        module = _module(network, match[1], networks)
        tensors[f"{module}.{SIDES[match[2]]}.weight"] = parameter.detach().to("cpu", dtype).contiguous()
        tensors[f"{module}.alpha"] = torch.tensor(networks.settings.scale, dtype=dtype)
    return tensors


def _module(network: str, path: str, networks: Networks) -> str:
    if network == "unet":
        if networks.family is Family.SDXL:
            path = _original_path(path, networks.unet.config.layers_per_block)
        return "lora_unet_" + path.replace(".", "_")
    prefix = "lora_te"
    if networks.family is Family.SDXL:
        prefix = "lora_te2" if network == "text_encoder_2" else "lora_te1"
    return f"{prefix}_text_model_" + path.removeprefix("text_model.").replace(".", "_")


def _original_path(path: str, per_level: int) -> str:
    """The name of an attention layer in the original layout, as kohya's SDXL files have it."""
    if match := re.fullmatch(r"down_blocks\.(\d+)\.attentions\.(\d+)\.(.+)", path):
        return f"input_blocks.{1 + int(match[1]) * (per_level + 1) + int(match[2])}.1.{match[3]}"
    if match := re.fullmatch(r"up_blocks\.(\d+)\.attentions\.(\d+)\.(.+)", path):
        return f"output_blocks.{int(match[1]) * (per_level + 1) + int(match[2])}.1.{match[3]}"
    if match := re.fullmatch(r"mid_block\.attentions\.0\.(.+)", path):
        return f"middle_block.1.{match[1]}"
    return path


def save_lora(networks: Networks, path: Path, facts: Mapping[str, Any]) -> None:
    """Writes the file with its training metadata; raises ValueError for values that cannot be stored so."""
    tensors = kohya_tensors(networks, SAVED_AS[networks.settings.save_precision])
    if not all(torch.isfinite(tensor).all() for tensor in tensors.values()):
        raise ValueError("the training diverged: the LoRA has values that are no finite numbers")
    save_file(tensors, path, metadata=metadata(networks, tensors, facts))
    path.chmod(FILE_MODE)


def metadata(networks: Networks, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> dict[str, str]:
    """kohya's `ss_…` names and Stability AI's `modelspec.…`, which model managers read."""
    settings = networks.settings
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy().tobytes())
    said = {
        "format": "pt",
        "ss_base_model_version": BASE_VERSIONS[networks.family],
        "ss_network_module": "networks.lora",
        "ss_network_dim": settings.rank,
        "ss_network_alpha": settings.scale,
        "ss_learning_rate": settings.learning_rate,
        "ss_unet_lr": settings.rate_of("unet") if settings.train_unet else None,
        "ss_text_encoder_lr": settings.rate_of("text_encoder") if settings.train_text_encoder else None,
        "ss_lr_scheduler": settings.scheduler,
        "ss_lr_warmup_steps": settings.warmup_steps,
        "ss_optimizer": settings.optimizer,
        "ss_gradient_accumulation_steps": settings.accumulation,
        "ss_gradient_checkpointing": settings.gradient_checkpointing,
        "ss_mixed_precision": settings.mixed_precision,
        "ss_noise_offset": settings.noise_offset or None,
        "ss_min_snr_gamma": settings.min_snr_gamma or None,
        "ss_prior_loss_weight": settings.prior_weight,
        "ss_clip_skip": settings.clip_skip or None,
        "ss_seed": settings.seed,
        "ss_training_comment": settings.comment or None,
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.implementation": "sdfleet",
        "modelspec.hash_sha256": digest.hexdigest(),
        **facts,
    }
    return {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in said.items()
        if value is not None
    }
