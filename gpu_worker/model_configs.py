"""Derives the configurations of UNet, VAE and text encoders from the shapes in a single-file checkpoint."""

import re
from typing import Any

from gpu_worker.architecture import (
    CLIP_TOKENS,
    CONV_IN,
    OPEN_CLIP_TOKENS,
    REFINER_OPEN_CLIP,
    UNET,
    XL_CLIP_TOKENS,
    XL_FAMILIES,
    XL_OPEN_CLIP,
    Architecture,
    Family,
)
from gpu_worker.errors import RequestFault
from gpu_worker.safetensors_header import Header

VAE = "first_stage_model."
HEAD_WIDTH = 64
SD1_HEADS = 8
TOKENS = 49408
POSITIONS = 77
SIZE_EMBEDDINGS = 6
# The refiner knows the picture's size, its crop, and how beautiful it is to be.
REFINER_EMBEDDINGS = 5
MAX_BLOCKS = 64


class Shapes:
    """Looks up sizes in a header; a size that is missing or zero is the file's fault."""

    def __init__(self, header: Header, name: str) -> None:
        self.header = header
        self.name = name

    def size(self, tensor: str, dimension: int, rank: int) -> int:
        """The size of one dimension of a tensor that must have `rank` dimensions."""
        shape = self.header.shape(tensor)
        if shape is None:
            raise RequestFault(f'checkpoint {self.name} lacks the tensor "{tensor}"')
        # A zero anywhere would let the other sizes be absurd in a file of a few bytes.
        if len(shape) != rank or min(shape) < 1:
            raise RequestFault(
                f'checkpoint {self.name} cannot be used: tensor "{tensor}" has shape {list(shape)}'
            )
        return shape[dimension]

    def has(self, tensor: str) -> bool:
        """Whether the file holds the tensor."""
        return tensor in self.header.tensors

    def count(self, pattern: str) -> int:
        """How many blocks match: one more than the highest number caught by the pattern's group."""
        numbers = {int(m.group(1)) for key in self.header.tensors if (m := re.match(pattern, key))}
        if numbers and (max(numbers) >= MAX_BLOCKS or len(numbers) != max(numbers) + 1):
            raise RequestFault(
                f"checkpoint {self.name} cannot be used: blocks are missing, there are only "
                f"{sorted(numbers)[:8]}"
            )
        return len(numbers)

    def metadata_numbers(self, key: str) -> list[int] | None:
        """Whole numbers from the file's own metadata, for what shapes cannot tell ("8" or "2,4")."""
        text = self.header.metadata.get(key)
        if text is None:
            return None
        numbers = [int(part) for part in re.findall(r"\d{1,4}", text)]
        if not numbers or min(numbers) < 1:
            raise RequestFault(
                f"checkpoint {self.name} has the metadata {key}={text[:60]!r}, whole numbers are needed"
            )
        return numbers

    def metadata_number(self, key: str, default: int) -> int:
        """One whole number from the file's metadata."""
        numbers = self.metadata_numbers(key)
        return numbers[0] if numbers else default


def unet_config(shapes: Shapes, architecture: Architecture, sample_size: int) -> dict[str, Any]:
    """Configures diffusers' ``UNet2DConditionModel``; the LDM block layout is read level by level."""
    channels, layers, depths = _unet_levels(shapes)
    deepest = shapes.count(rf"{re.escape(UNET)}middle_block\.1\.transformer_blocks\.(\d+)\.")
    if deepest == 0:
        raise RequestFault(f"checkpoint {shapes.name} lacks the attention of its UNet's middle block")
    first = next((level for level, depth in enumerate(depths) if depth), len(depths) - 1)
    key = _first_attention(shapes)
    heads = shapes.metadata_numbers("sdfleet.unet_attention_heads")
    config: dict[str, Any] = {
        "_class_name": "UNet2DConditionModel",
        "in_channels": architecture.in_channels,
        "out_channels": shapes.size(UNET + "out.2.weight", 0, 4),
        "block_out_channels": channels,
        "layers_per_block": layers,
        "down_block_types": ["CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in depths],
        "up_block_types": ["CrossAttnUpBlock2D" if depth else "UpBlock2D" for depth in reversed(depths)],
        "transformer_layers_per_block": [
            depth or (deepest if level > first else 1) for level, depth in enumerate(depths)
        ],
        "cross_attention_dim": shapes.size(key + "transformer_blocks.0.attn2.to_k.weight", 1, 2),
        "use_linear_projection": len(shapes.header.shape(key + "proj_in.weight") or ()) == 2,
        "norm_num_groups": shapes.metadata_number("sdfleet.unet_norm_num_groups", 32),
        "attention_head_dim": _heads(heads, channels, architecture.family),
        "sample_size": sample_size,
    }
    if shapes.has(UNET + "label_emb.0.0.weight"):
        config |= _size_conditioning(shapes, architecture.family)
    return config


def _unet_levels(shapes: Shapes) -> tuple[list[int], int, list[int]]:
    """Channels of each level, residual blocks per level, transformer depth of each (0: no attention)."""
    channels: list[int] = []
    layers: list[int] = []
    depths: list[int] = []
    level = 0
    for block in range(1, shapes.count(rf"{re.escape(UNET)}input_blocks\.(\d+)\.")):
        prefix = f"{UNET}input_blocks.{block}."
        if shapes.has(prefix + "0.op.weight"):
            level += 1
            continue
        width = shapes.size(prefix + "0.out_layers.3.weight", 0, 4)
        depth = shapes.count(rf"{re.escape(prefix)}1\.transformer_blocks\.(\d+)\.")
        if len(channels) == level:
            channels.append(width)
            layers.append(0)
            depths.append(depth)
        elif len(channels) < level:
            raise RequestFault(f"checkpoint {shapes.name} cannot be used: level {level} of its UNet is empty")
        layers[level] += 1
    if len(set(layers)) != 1 or len(channels) != level + 1:
        raise RequestFault(f"checkpoint {shapes.name} cannot be used: its UNet has uneven levels {layers}")
    if channels[0] != shapes.size(CONV_IN, 0, 4):
        raise RequestFault(f'checkpoint {shapes.name} cannot be used: the width of tensor "{CONV_IN}" is odd')
    return channels, layers[0], depths


def _first_attention(shapes: Shapes) -> str:
    for key in sorted(shapes.header.tensors):
        match = re.match(rf"({re.escape(UNET)}input_blocks\.\d+\.1\.)transformer_blocks\.0\.attn2\.", key)
        if match:
            return match.group(1)
    return UNET + "middle_block.1."


def _heads(stated: list[int] | None, channels: list[int], family: Family) -> int | list[int]:
    """Attention heads per level, which diffusers' configurations call ``attention_head_dim``.

    Rule without metadata: 8 heads in SD 1.x, heads of 64 channels since SD 2.0 (the published LDM yaml
    files).
    """
    if stated:
        return stated if len(stated) == len(channels) else stated[0]
    if family is Family.SD1:
        return SD1_HEADS
    return [max(1, width // HEAD_WIDTH) for width in channels]


def _size_conditioning(shapes: Shapes, family: Family) -> dict[str, Any]:
    """SDXL's extra input: the pooled text and six (the refiner: five) embedded numbers, concatenated."""
    is_refiner = family is Family.SDXL_REFINER
    numbers = REFINER_EMBEDDINGS if is_refiner else SIZE_EMBEDDINGS
    width = shapes.size(UNET + "label_emb.0.0.weight", 1, 2)
    pooled = shapes.size((REFINER_OPEN_CLIP if is_refiner else XL_OPEN_CLIP) + "text_projection", 1, 2)
    rest = width - pooled
    if rest < numbers or rest % numbers:
        raise RequestFault(
            f"checkpoint {shapes.name} cannot be used: its size conditioning is {width} wide, its pooled "
            f"text {pooled}"
        )
    return {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": rest // numbers,
        "projection_class_embeddings_input_dim": width,
    }


def vae_config(shapes: Shapes, family: Family, sample_size: int, prefix: str = VAE) -> dict[str, Any]:
    """The configuration of diffusers' ``AutoencoderKL``, of a checkpoint or of a VAE file (`prefix` "")."""
    escaped = re.escape(prefix)
    levels = shapes.count(rf"{escaped}encoder\.down\.(\d+)\.")
    if levels == 0:
        raise RequestFault(
            f'checkpoint {shapes.name} lacks the tensor "{prefix}encoder.conv_in.weight" of its VAE'
        )
    channels = [
        shapes.size(f"{prefix}encoder.down.{level}.block.0.conv1.weight", 0, 4) for level in range(levels)
    ]
    return {
        "_class_name": "AutoencoderKL",
        "in_channels": shapes.size(prefix + "encoder.conv_in.weight", 1, 4),
        "out_channels": shapes.size(prefix + "decoder.conv_out.weight", 0, 4),
        "latent_channels": shapes.size(prefix + "decoder.conv_in.weight", 1, 4),
        "block_out_channels": channels,
        "layers_per_block": shapes.count(rf"{escaped}encoder\.down\.0\.block\.(\d+)\."),
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "norm_num_groups": shapes.metadata_number("sdfleet.vae_norm_num_groups", 32),
        "use_quant_conv": shapes.has(prefix + "quant_conv.weight"),
        "use_post_quant_conv": shapes.has(prefix + "post_quant_conv.weight"),
        "sample_size": sample_size * 2 ** (levels - 1),
        # Stated by the published configurations of each family.
        "scaling_factor": 0.13025 if family in XL_FAMILIES else 0.18215,
        "force_upcast": family in XL_FAMILIES,
    }


def clip_config(shapes: Shapes, tokens: str = CLIP_TOKENS) -> dict[str, Any]:
    """Configures transformers' ``CLIPTextModel`` for OpenAI CLIP's text model (SD 1.x, SDXL's first)."""
    prefix = tokens.removesuffix("embeddings.token_embedding.weight")
    hidden = shapes.size(tokens, 1, 2)
    layers = shapes.count(rf"{re.escape(prefix)}encoder\.layers\.(\d+)\.")
    inner = shapes.size(prefix + "encoder.layers.0.mlp.fc1.weight", 0, 2)
    positions = shapes.size(prefix + "embeddings.position_embedding.weight", 0, 2)
    config = _text_config(shapes, tokens, hidden, layers, inner, positions)
    return config | {"architectures": ["CLIPTextModel"], "hidden_act": "quick_gelu", "projection_dim": hidden}


def open_clip_config(shapes: Shapes, family: Family) -> dict[str, Any]:
    """The configuration of OpenCLIP's text model: SD 2.x (its last layer is not used) or SDXL's second."""
    prefixes = {Family.SDXL: XL_OPEN_CLIP, Family.SDXL_REFINER: REFINER_OPEN_CLIP}
    prefix = prefixes.get(family, OPEN_CLIP_TOKENS.removesuffix("token_embedding.weight"))
    tokens = prefix + "token_embedding.weight"
    hidden = shapes.size(tokens, 1, 2)
    layers = shapes.count(rf"{re.escape(prefix)}transformer\.resblocks\.(\d+)\.")
    if family is Family.SD2 and layers == 24:
        # diffusers ignores the 24th: SD 2.x was trained on the output of the one before it.
        layers -= 1
    inner = shapes.size(prefix + "transformer.resblocks.0.mlp.c_fc.weight", 0, 2)
    positions = shapes.size(prefix + "positional_embedding", 0, 2)
    config = _text_config(shapes, tokens, hidden, layers, inner, positions) | {"hidden_act": "gelu"}
    if family in XL_FAMILIES:
        projection = shapes.size(prefix + "text_projection", 1, 2)
        return config | {"architectures": ["CLIPTextModelWithProjection"], "projection_dim": projection}
    return config | {"architectures": ["CLIPTextModel"], "projection_dim": hidden}


def _text_config(
    shapes: Shapes, tokens: str, hidden: int, layers: int, inner: int, positions: int
) -> dict[str, Any]:
    vocabulary = shapes.size(tokens, 0, 2)
    if vocabulary < TOKENS or positions < POSITIONS:
        raise RequestFault(
            f"checkpoint {shapes.name} cannot be used: its text encoder knows {vocabulary} tokens at "
            f"{positions} "
            f"positions, CLIP's tokenizer makes {TOKENS} at {POSITIONS}"
        )
    heads = shapes.metadata_number("sdfleet.text_attention_heads", max(1, hidden // HEAD_WIDTH))
    return {
        "model_type": "clip_text_model",
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": inner,
        "max_position_embeddings": positions,
        "layer_norm_eps": 1e-5,
        "bos_token_id": TOKENS - 2,
        "eos_token_id": TOKENS - 1,
        "pad_token_id": 1 if "0.transformer" in tokens or tokens == CLIP_TOKENS else 0,
    }


def text_encoder_configs(shapes: Shapes, family: Family) -> dict[str, dict[str, Any]]:
    """Configurations by pipeline component."""
    if family is Family.SDXL:
        return {
            "text_encoder": clip_config(shapes, XL_CLIP_TOKENS),
            "text_encoder_2": open_clip_config(shapes, family),
        }
    if family is Family.SDXL_REFINER:
        return {"text_encoder_2": open_clip_config(shapes, family)}
    if family is Family.SD2:
        return {"text_encoder": open_clip_config(shapes, family)}
    return {"text_encoder": clip_config(shapes)}
