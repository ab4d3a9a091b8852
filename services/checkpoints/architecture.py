"""Names what a weight file is from the names and shapes of its tensors.

Where the names come from: CompVis and Stability-AI checkpoints (`model.diffusion_model.…`), kohya-ss
(`lora_unet_…`), KohakuBlueleaf/LyCORIS (`hada_…`, `lokr_…`), diffusers (`….lora_A.…`, `down_blocks.…`),
lllyasviel/ControlNet (`control_model.…`), AUTOMATIC1111's WebUI (`emb_params`, hypernetworks), xinntao's
BasicSR, ESRGAN and GFPGAN (`conv_first`, `RRDB_trunk`, `stylegan_decoder.`).
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from services.checkpoints.safetensors_header import Header

UNET = "model.diffusion_model."
CONV_IN = UNET + "input_blocks.0.0.weight"
# The width of the text that the UNet attends to tells the families apart.
FAMILIES = {768: "Stable Diffusion 1.x", 1024: "Stable Diffusion 2.x", 2048: "SDXL", 1280: "SDXL refiner"}
EMBEDDING_FAMILIES = {768: "Stable Diffusion 1.x", 1024: "Stable Diffusion 2.x"}
MOST_VECTORS = 128  # of one textual inversion
# What each input channel count of a UNet is for.
USES = {4: "", 5: "depth", 8: "InstructPix2Pix", 9: "inpainting"}
LORA_FORMATS = {
    ".hada_w1_a": "LyCORIS LoHa",
    ".lokr_w1": "LyCORIS LoKr",
    ".lora_A.": "diffusers",
    ".lora.down.": "diffusers",
    "_lora.down.": "diffusers",
    ".lora_down.": "kohya",
}
HYPERNETWORK = re.compile(r"^(320|640|768|1024|1280|2048)\.[01]\.")


@dataclass(frozen=True)
class Found:
    """What a file is: the checkpoint type that it belongs to, and its architecture in words."""

    type: str
    architecture: str


class _Tensors:
    """The questions that rules ask of a header."""

    def __init__(self, tensors: Mapping[str, Mapping[str, Any]]) -> None:
        self._tensors = tensors
        self.names = list(tensors)

    def has(self, *names: str) -> bool:
        return all(name in self._tensors for name in names)

    def begins(self, *prefixes: str) -> bool:
        return any(name.startswith(prefixes) for name in self.names)

    def holds(self, *parts: str) -> bool:
        return any(part in name for name in self.names for part in parts)

    def shape(self, name: str) -> list[int]:
        return list(self._tensors.get(name, {}).get("shape", ()))

    def shapes(self) -> list[list[int]]:
        return [list(entry["shape"]) for entry in self._tensors.values()]

    def family(self) -> str:
        """The family by the width of what the keys of the second attention take; empty when unknown."""
        for name in self.names:
            if re.search(r"attn2[._]to_k(\.weight|\.(processor\.)?lora|_lora|\.hada_w1_b)", name):
                shape = self.shape(name)
                if len(shape) >= 2 and not re.search(r"lora_?(\.?up|_B)\b|lora_B", name):
                    return FAMILIES.get(shape[1], "")
        return ""


def recognise(header: Header) -> Found | None:
    """What the file is; None when no rule knows it."""
    tensors = _Tensors(header.tensors)
    return next((found for rule in RULES if (found := rule(tensors))), None)


def _words(*parts: str) -> str:
    return " ".join(part for part in parts if part)


def _lora(tensors: _Tensors) -> Found | None:
    if tensors.has("lora_controlnet"):
        return Found("ControlNet", _words(tensors.family(), "Control-LoRA"))
    kind = next((kind for part, kind in LORA_FORMATS.items() if tensors.holds(part)), None)
    if kind is None:
        return None
    if tensors.holds("double_blocks", "single_transformer_blocks"):
        return Found("Lora", f"Flux LoRA ({kind})")
    family = tensors.family() or ("SDXL" if tensors.begins("lora_te2_", "text_encoder_2.") else "")
    return Found("Lora", _words(family, f"LoRA ({kind})"))


def _controlnet(tensors: _Tensors) -> Found | None:
    if tensors.begins("control_model.", "controlnet_cond_embedding.") or tensors.holds("input_hint_block."):
        return Found("ControlNet", _words(tensors.family(), "ControlNet"))
    if tensors.begins("image_proj.", "ip_adapter."):
        return Found("ControlNet", "IP-Adapter")
    if tensors.begins("adapter.body.") or (
        tensors.begins("body.0.resnets.") and tensors.has("conv_in.weight")
    ):
        return Found("ControlNet", "T2I-Adapter")
    return None


def _checkpoint(tensors: _Tensors) -> Found | None:
    if tensors.holds("joint_blocks.0."):
        return Found("Stable-diffusion", "Stable Diffusion 3")
    if tensors.holds("double_blocks.0."):
        return Found("Stable-diffusion", "Flux")
    shape = tensors.shape(CONV_IN)
    if len(shape) != 4:
        return None
    channels = shape[1]
    use = USES.get(channels, f"with {channels} channels")
    return Found("Stable-diffusion", _words(_checkpoint_family(tensors), use))


def _checkpoint_family(tensors: _Tensors) -> str:
    if tensors.begins("conditioner.embedders.1."):
        return "SDXL"
    if tensors.begins("conditioner.embedders.0.model."):
        return "SDXL refiner"
    if tensors.begins("cond_stage_model.model."):
        return "Stable Diffusion 2.x"
    if tensors.begins("cond_stage_model.transformer."):
        return "Stable Diffusion 1.x"
    return _words(tensors.family() or "Stable Diffusion", "without a text encoder")


def _diffusers_unet(tensors: _Tensors) -> Found | None:
    if not (tensors.has("conv_in.weight") and tensors.begins("down_blocks.0.", "time_embedding.")):
        return None
    if tensors.begins("encoder.", "decoder."):
        return None
    return Found("Stable-diffusion", _words(tensors.family(), "UNet in the layout of diffusers"))


def _vae(tensors: _Tensors) -> Found | None:
    for prefix in ("", "first_stage_model.", "vae."):
        conv_in, conv_out = (
            tensors.shape(f"{prefix}{name}.conv_in.weight") for name in ("decoder", "encoder")
        )
        if len(conv_in) == 4 and conv_out:
            wide = "" if conv_in[1] == 4 else f" with {conv_in[1]} channels"
            return Found("VAE", f"VAE{wide}")
    return None


def _embedding(tensors: _Tensors) -> Found | None:
    if tensors.has("clip_l", "clip_g"):
        return Found("embeddings", "SDXL textual inversion")
    shapes = tensors.shapes()
    if tensors.has("emb_params") or (len(shapes) == 1 and "." not in tensors.names[0]):
        shape = tensors.shape("emb_params") or shapes[0]
        flat = 1 <= len(shape) <= 2 and (len(shape) == 1 or shape[0] <= MOST_VECTORS)
        if flat and (tensors.has("emb_params") or shape[-1] in EMBEDDING_FAMILIES):
            return Found("embeddings", _words(EMBEDDING_FAMILIES.get(shape[-1], ""), "textual inversion"))
    return None


def _hypernetwork(tensors: _Tensors) -> Found | None:
    if any(HYPERNETWORK.match(name) for name in tensors.names):
        return Found("hypernetworks", "hypernetwork")
    return None


def _other_models(tensors: _Tensors) -> Found | None:
    for marks, found in OTHER_MODELS:
        if all(tensors.begins(mark) for mark in marks):
            return found
    return None


# What a file holds all of, each as the beginning of a tensor's name; the first match counts.
OTHER_MODELS = (
    (("stylegan_decoder",), Found("FaceRestore", "GFPGAN")),
    (("quantize.embedding.weight", "position_emb"), Found("FaceRestore", "CodeFormer")),
    (("vqvae.",), Found("FaceRestore", "RestoreFormer")),
    (("image_encoder.patch_embed.", "mask_decoder."), Found("Segmentation", "Segment Anything")),
    (("stage1.rebnconvin.",), Found("Segmentation", "U²-Net")),
    (("visual_encoder.", "text_decoder."), Found("Interrogator", "BLIP")),
    (("n_Conv_0.",), Found("Interrogator", "DeepDanbooru")),
    (("model.0.weight", "model.1.sub."), Found("Upscaler", "ESRGAN")),
    (("conv_first.weight", "RRDB_trunk."), Found("Upscaler", "ESRGAN")),
    (("conv_first.weight", "body.0.rdb1."), Found("Upscaler", "ESRGAN")),
    (("conv_first.weight", "layers.0.residual_group."), Found("Upscaler", "SwinIR")),
    (("conv_first.weight", "layers.0."), Found("Upscaler", "transformer upscaler")),
    (("body.0.weight", "body.1.weight"), Found("Upscaler", "Real-ESRGAN compact")),
)

Rule = Callable[[_Tensors], Found | None]
# A LoRA of a whole checkpoint has names that look like the checkpoint's: the special comes first.
RULES: tuple[Rule, ...] = (
    _lora,
    _controlnet,
    _checkpoint,
    _vae,
    _diffusers_unet,
    _embedding,
    _hypernetwork,
    _other_models,
)
