"""Names what a weight file is from the tensors it holds."""

from dataclasses import dataclass
from enum import StrEnum

from gpu_worker.errors import RequestFault
from gpu_worker.safetensors_header import Header

UNET = "model.diffusion_model."
CONV_IN = UNET + "input_blocks.0.0.weight"
CLIP_TOKENS = "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight"
OPEN_CLIP_TOKENS = "cond_stage_model.model.token_embedding.weight"
XL_CLIP_TOKENS = "conditioner.embedders.0.transformer.text_model.embeddings.token_embedding.weight"
XL_OPEN_CLIP = "conditioner.embedders.1.model."
REFINER_OPEN_CLIP = "conditioner.embedders.0.model."


class Family(StrEnum):
    """The architectures that this worker knows by name."""

    SD1 = "Stable Diffusion 1.x"
    SD2 = "Stable Diffusion 2.x"
    SDXL = "SDXL base"
    SDXL_REFINER = "SDXL refiner"


XL_FAMILIES = (Family.SDXL, Family.SDXL_REFINER)


@dataclass(frozen=True, slots=True)
class Architecture:
    """What a checkpoint is; `in_channels` of the UNet: 4 draws from text, 9 inpaints, 5 and 8 edit."""

    family: Family
    in_channels: int


# How a file that is no checkpoint gives itself away: a part of a tensor name, and what the file is.
OTHER_FILES = (
    ("lora_unet_", "a LoRA"),
    ("lora_te", "a LoRA"),
    (".lora_A.", "a LoRA"),
    (".lora_down.", "a LoRA"),
    ("hada_w1_a", "a LyCORIS file"),
    ("control_model.", "a ControlNet"),
    ("controlnet_cond_embedding.", "a ControlNet"),
    ("emb_params", "a textual inversion embedding"),
    ("clip_l", "a textual inversion embedding"),
    ("double_blocks.", "a Flux model, which this worker does not run"),
    ("joint_blocks.", "a Stable Diffusion 3 model, which this worker does not run"),
    ("down_blocks.0.", "a UNet or VAE in diffusers' layout; a single-file checkpoint is needed"),
    ("decoder.conv_in.weight", "a VAE"),
    ("model.0.weight", "an upscaler"),
    ("conv_first.weight", "an upscaler"),
)


def detect(header: Header, name: str) -> Architecture:
    """Finds the family from the tensor names; raises `RequestFault` that says what the file is instead.

    diffusers' own ``infer_diffusers_model_type`` is not asked: it needs the full-size models' deepest layers.
    """
    if CONV_IN not in header.tensors:
        raise RequestFault(f"checkpoint {name} is no Stable Diffusion checkpoint: it {_what_else(header)}")
    shape = header.tensors[CONV_IN].shape
    if len(shape) != 4:
        raise RequestFault(
            f'checkpoint {name} cannot be used: tensor "{CONV_IN}" has shape {list(shape)}, not four sizes'
        )
    return Architecture(_family(header, name), in_channels=shape[1])


def _family(header: Header, name: str) -> Family:
    names = header.tensors
    if any(key.startswith(XL_OPEN_CLIP) for key in names):
        return Family.SDXL
    if any(key.startswith(REFINER_OPEN_CLIP) for key in names):
        return Family.SDXL_REFINER
    if any(key.startswith("cond_stage_model.model.") for key in names):
        return Family.SD2
    if any(key.startswith("cond_stage_model.transformer.") for key in names):
        return Family.SD1
    raise RequestFault(f'checkpoint {name} has a UNet but no text encoder: tensor "{CLIP_TOKENS}" is missing')


def _what_else(header: Header) -> str:
    for part, meaning in OTHER_FILES:
        if any(part in key for key in header.tensors):
            return f"looks like {meaning}"
    first = next(iter(header.tensors))
    return f'lacks the tensor "{CONV_IN}" (its first tensor is "{first[:100]}")'
