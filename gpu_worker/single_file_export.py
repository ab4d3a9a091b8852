"""Writes a diffusers pipeline as one safetensors file in the original layout of SD 1.x or SDXL."""

import os
import re
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

StateDict = dict[str, Tensor]

UNET_PREFIX = "model.diffusion_model."
VAE_PREFIX = "first_stage_model."
SD1_TEXT_PREFIX = "cond_stage_model.transformer."
SDXL_TEXT_PREFIX = "conditioner.embedders.0.transformer."
SDXL_TEXT_2_PREFIX = "conditioner.embedders.1.model."
FILE_MODE = 0o644  # safetensors itself leaves 0600, which another user's worker could not read

_UNET_TOP = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_UNET_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
_OPENCLIP_LAYER = {
    "self_attn.out_proj": "attn.out_proj",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}


def _rename(path: str, names: Mapping[str, str]) -> str:
    """Replaces the leading module name of ``path`` (``norm1.weight``) by its counterpart."""
    module, _, parameter = path.rpartition(".")
    if module not in names:
        raise ValueError(f"the original layout has no place for {path!r}")
    return f"{names[module]}.{parameter}"


def _unet_block(kind: str, path: str) -> str:
    return "0." + _rename(path, _UNET_RESNET) if kind == "resnets" else "1." + path


def _unet_key(key: str, resnets_per_level: int, resnets_per_up_level: int, attention_levels: set[int]) -> str:
    """The original name of one UNet tensor; levels become a flat count of blocks in the original layout.

    ``attention_levels`` are the up blocks with attention: there the upsampler comes third, elsewhere second.
    """
    if match := re.fullmatch(r"down_blocks\.(\d+)\.(resnets|attentions)\.(\d+)\.(.+)", key):
        block = 1 + int(match[1]) * (resnets_per_level + 1) + int(match[3])
        return f"input_blocks.{block}.{_unet_block(match[2], match[4])}"
    if match := re.fullmatch(r"down_blocks\.(\d+)\.downsamplers\.0\.conv\.(.+)", key):
        return f"input_blocks.{(int(match[1]) + 1) * (resnets_per_level + 1)}.0.op.{match[2]}"
    if match := re.fullmatch(r"up_blocks\.(\d+)\.(resnets|attentions)\.(\d+)\.(.+)", key):
        block = int(match[1]) * resnets_per_up_level + int(match[3])
        return f"output_blocks.{block}.{_unet_block(match[2], match[4])}"
    if match := re.fullmatch(r"up_blocks\.(\d+)\.upsamplers\.0\.conv\.(.+)", key):
        level = int(match[1])
        place = 2 if level in attention_levels else 1
        return f"output_blocks.{(level + 1) * resnets_per_up_level - 1}.{place}.conv.{match[2]}"
    if match := re.fullmatch(r"mid_block\.attentions\.0\.(.+)", key):
        return f"middle_block.1.{match[1]}"
    if match := re.fullmatch(r"mid_block\.resnets\.([01])\.(.+)", key):
        return f"middle_block.{2 * int(match[1])}.{_rename(match[2], _UNET_RESNET)}"
    return _rename(key, _UNET_TOP)


def convert_unet(unet: torch.nn.Module) -> StateDict:
    """The UNet's tensors under their original names."""
    config: Any = unet.config
    per_level = config.layers_per_block
    if not isinstance(per_level, int):
        raise ValueError(f"layers_per_block must be one number for all levels, not {per_level!r}")
    kinds = config.up_block_types
    with_attention = {level for level, kind in enumerate(kinds) if kind.startswith("CrossAttn")}
    return {
        UNET_PREFIX + _unet_key(key, per_level, per_level + 1, with_attention): tensor
        for key, tensor in unet.state_dict().items()
    }


def _vae_key(key: str, levels: int) -> str:
    """The original name of one VAE tensor; the original counts the decoder's levels from the other end."""
    decoder_level: Callable[[re.Match[str]], str] = lambda m: f"decoder.up.{levels - 1 - int(m[1])}."  # noqa: E731
    key = re.sub(r"^encoder\.down_blocks\.(\d+)\.", r"encoder.down.\1.", key)
    key = re.sub(r"^decoder\.up_blocks\.(\d+)\.", decoder_level, key)
    key = key.replace(".downsamplers.0.", ".downsample.").replace(".upsamplers.0.", ".upsample.")
    key = re.sub(r"mid_block\.resnets\.([01])\.", lambda m: f"mid.block_{int(m[1]) + 1}.", key)
    key = key.replace(".resnets.", ".block.")
    key = key.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
    if match := re.fullmatch(r"(encoder|decoder)\.mid_block\.attentions\.0\.(.+)", key):
        return f"{match[1]}.mid.attn_1.{_rename(match[2], _VAE_ATTENTION)}"
    return key


def convert_vae(vae: torch.nn.Module) -> StateDict:
    """The VAE's tensors under their original names; its attention is made of 1x1 convolutions there."""
    config: Any = vae.config
    converted = {}
    for key, tensor in vae.state_dict().items():
        is_matrix = ".attentions." in key and tensor.dim() == 2
        name = VAE_PREFIX + _vae_key(key, len(config.block_out_channels))
        converted[name] = tensor[:, :, None, None] if is_matrix else tensor
    return converted


def _text_tensors(text_encoder: torch.nn.Module) -> StateDict:
    # transformers dropped the "text_model." prefix in release 5.6; both kinds end up without it here.
    tensors = {key.removeprefix("text_model."): value for key, value in text_encoder.state_dict().items()}
    return {key: value for key, value in tensors.items() if not key.endswith("position_ids")}


def convert_clip_l(text_encoder: torch.nn.Module, prefix: str) -> StateDict:
    """The first text encoder's tensors; the original layout keeps transformers' old names."""
    tensors = _text_tensors(text_encoder)
    tensors.pop("text_projection.weight", None)
    return {f"{prefix}text_model.{key}": value for key, value in tensors.items()}


def convert_open_clip(text_encoder: torch.nn.Module, prefix: str) -> StateDict:
    """SDXL's second text encoder under OpenCLIP's names: query, key and value lie in one matrix."""
    tensors = _text_tensors(text_encoder)
    converted = {
        "text_projection": tensors.pop("text_projection.weight").T,
        "positional_embedding": tensors.pop("embeddings.position_embedding.weight"),
        "token_embedding.weight": tensors.pop("embeddings.token_embedding.weight"),
    }
    for kind in ("weight", "bias"):
        converted[f"ln_final.{kind}"] = tensors.pop(f"final_layer_norm.{kind}")
    for key, tensor in tensors.items():
        match = re.fullmatch(r"encoder\.layers\.(\d+)\.(.+)", key)
        if match is None:
            raise ValueError(f"the original layout has no place for {key!r}")
        layer, path = f"transformer.resblocks.{match[1]}.", match[2]
        if joined := re.fullmatch(r"self_attn\.([qkv])_proj\.(weight|bias)", path):
            if joined[1] == "q":
                parts = [tensors[key.replace("q_proj", f"{part}_proj")] for part in "qkv"]
                converted[f"{layer}attn.in_proj_{joined[2]}"] = torch.cat(parts)
        else:
            converted[layer + _rename(path, _OPENCLIP_LAYER)] = tensor
    return {prefix + key: value for key, value in converted.items()}


def single_file_state_dict(pipeline: Any) -> StateDict:
    """All tensors of a Stable Diffusion 1.x or SDXL pipeline under the names of the original single file.

    Raises ValueError for networks which that layout cannot hold.
    """
    networks = convert_unet(pipeline.unet) | convert_vae(pipeline.vae)
    if getattr(pipeline, "text_encoder_2", None) is None:
        return networks | convert_clip_l(pipeline.text_encoder, SD1_TEXT_PREFIX)
    first = convert_clip_l(pipeline.text_encoder, SDXL_TEXT_PREFIX)
    return networks | first | convert_open_clip(pipeline.text_encoder_2, SDXL_TEXT_2_PREFIX)


def _cast(name: str, tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    if dtype is None or not tensor.is_floating_point():
        return tensor.detach().cpu().contiguous().clone()
    narrowed = tensor.detach().to("cpu", dtype).contiguous().clone()
    if not torch.isfinite(narrowed).all():
        raise ValueError(f"{name} has values which are not finite numbers in {dtype}")
    return narrowed


def save_single_file(
    pipeline: Any,
    path: str | os.PathLike[str],
    dtype: torch.dtype | None = torch.float16,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes ``pipeline`` to ``path`` whole or not at all, readable by everyone.

    ``dtype`` None keeps each tensor's own type. Raises ValueError if the original layout cannot hold the
    networks or ``dtype`` cannot hold a value.
    """
    tensors = {name: _cast(name, tensor, dtype) for name, tensor in single_file_state_dict(pipeline).items()}
    target = Path(path)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".partial")
    os.close(handle)
    temporary = Path(name)
    try:
        save_file(tensors, temporary, metadata={"format": "pt", **(metadata or {})})
        temporary.chmod(FILE_MODE)
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
