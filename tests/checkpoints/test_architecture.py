"""What a file is, told from its tensors; and what is said when it is not what its checkpoint says."""

import json
import struct
from typing import Any

import pytest

from services.checkpoints.architecture import recognise
from services.checkpoints.inspection import LARGEST_METADATA, LONGEST_VALUE, bounded
from services.checkpoints.safetensors_header import Header
from tests.checkpoints.conftest import Service, unique

UNET = "model.diffusion_model."
CONV_IN = UNET + "input_blocks.0.0.weight"
CLIP = "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight"
KOHYA = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight"


def what(**shapes: list[int]) -> tuple[str, str] | None:
    found = recognise(Header({name: {"dtype": "F16", "shape": shape} for name, shape in shapes.items()}, {}))
    return (found.type, found.architecture) if found else None


def file_of(metadata: dict[str, str] | None = None, **shapes: list[int]) -> bytes:
    """A file with float16 tensors of these shapes."""
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    end = 0
    for name, shape in shapes.items():
        size = 2
        for side in shape:
            size *= side
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(end)


@pytest.mark.parametrize(
    ("tensors", "kind", "architecture"),
    [
        ({CONV_IN: [320, 4, 3, 3], CLIP: [49408, 768]}, "Stable-diffusion", "Stable Diffusion 1.x"),
        ({CONV_IN: [320, 9, 3, 3], CLIP: [9, 9]}, "Stable-diffusion", "Stable Diffusion 1.x inpainting"),
        ({CONV_IN: [320, 8, 3, 3], CLIP: [9, 9]}, "Stable-diffusion", "Stable Diffusion 1.x InstructPix2Pix"),
        (
            {CONV_IN: [320, 5, 3, 3], "cond_stage_model.model.ln_final.bias": [1024]},
            "Stable-diffusion",
            "Stable Diffusion 2.x depth",
        ),
        (
            {CONV_IN: [320, 4, 3, 3], "conditioner.embedders.1.model.ln_final.bias": [1280]},
            "Stable-diffusion",
            "SDXL",
        ),
        (
            {CONV_IN: [384, 4, 3, 3], "conditioner.embedders.0.model.ln_final.bias": [1280]},
            "Stable-diffusion",
            "SDXL refiner",
        ),
        ({UNET + "joint_blocks.0.x_block.attn.qkv.weight": [9, 9]}, "Stable-diffusion", "Stable Diffusion 3"),
        ({"double_blocks.0.img_attn.qkv.weight": [9, 9]}, "Stable-diffusion", "Flux"),
        (
            {"conv_in.weight": [320, 4, 3, 3], "down_blocks.0.resnets.0.norm1.bias": [320]},
            "Stable-diffusion",
            "UNet in the layout of diffusers",
        ),
        ({KOHYA: [8, 768]}, "Lora", "Stable Diffusion 1.x LoRA (kohya)"),
        ({KOHYA: [8, 1024]}, "Lora", "Stable Diffusion 2.x LoRA (kohya)"),
        ({KOHYA: [8, 2048]}, "Lora", "SDXL LoRA (kohya)"),
        (
            {"unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.lora_A.weight": [8, 2048]},
            "Lora",
            "SDXL LoRA (diffusers)",
        ),
        ({"lora_unet_mid_block_resnets_0_conv1.hada_w1_a": [8, 8]}, "Lora", "LoRA (LyCORIS LoHa)"),
        ({"lora_te2_text_model_encoder.lora_down.weight": [8, 8]}, "Lora", "SDXL LoRA (kohya)"),
        ({"lora_unet_double_blocks_0_img.lora_down.weight": [8, 8]}, "Lora", "Flux LoRA (kohya)"),
        ({"control_model.input_hint_block.0.weight": [9, 9]}, "ControlNet", "ControlNet"),
        ({"controlnet_cond_embedding.conv_in.weight": [9, 9]}, "ControlNet", "ControlNet"),
        ({"image_proj.proj.weight": [9, 9]}, "ControlNet", "IP-Adapter"),
        (
            {"decoder.conv_in.weight": [512, 4, 3, 3], "encoder.conv_in.weight": [128, 3, 3, 3]},
            "VAE",
            "VAE",
        ),
        ({"emb_params": [4, 768]}, "embeddings", "Stable Diffusion 1.x textual inversion"),
        ({"clip_l": [4, 768], "clip_g": [4, 1280]}, "embeddings", "SDXL textual inversion"),
        ({"<cat-toy>": [1024]}, "embeddings", "Stable Diffusion 2.x textual inversion"),
        ({"320.0.linear.0.weight": [640, 320]}, "hypernetworks", "hypernetwork"),
        ({"model.0.weight": [64, 3, 3, 3], "model.1.sub.0.RDB1.conv1.0.weight": [32]}, "Upscaler", "ESRGAN"),
        ({"conv_first.weight": [64, 3, 3, 3], "body.0.rdb1.conv1.weight": [32]}, "Upscaler", "ESRGAN"),
        ({"body.0.weight": [64, 3, 3, 3], "body.1.weight": [64]}, "Upscaler", "Real-ESRGAN compact"),
        ({"stylegan_decoder.constant_input.weight": [1]}, "FaceRestore", "GFPGAN"),
        ({"visual_encoder.cls_token": [1], "text_decoder.bert.x": [1]}, "Interrogator", "BLIP"),
    ],
)
def test_a_file_is_recognised_by_its_tensors(
    tensors: dict[str, list[int]], kind: str, architecture: str
) -> None:
    assert what(**tensors) == (kind, architecture)


def test_a_file_of_strange_tensors_is_nothing_in_particular() -> None:
    assert what(something=[3], other=[4]) is None
    assert what(weight=[1000]) is None


def params(service: Service, checkpoint_id: str) -> dict[str, Any]:
    return dict(service.call("GET", f"/checkpoints/{checkpoint_id}").json["data"]["checkpoint"]["params"])


def test_architecture_and_metadata_are_on_the_checkpoint(service: Service) -> None:
    content = file_of({"ss_output_name": "my style"}, **{KOHYA: [8, 768]})
    found = params(service, service.active(content).id)
    assert found["architecture"] == "Stable Diffusion 1.x LoRA (kohya)"
    assert found["metadata"] == {"ss_output_name": "my style"}
    assert "warning" not in found


def test_a_file_of_another_type_is_reported_and_not_refused(service: Service) -> None:
    vae = file_of(**{"decoder.conv_in.weight": [1, 4, 1, 1], "encoder.conv_in.weight": [1, 3, 1, 1]})
    uploaded = service.active(vae)
    assert params(service, uploaded.id)["warning"] == f"{uploaded.name} looks like VAE (VAE), not Lora"
    body = {"checkpoint_type": "VAE"}
    assert service.call("PUT", f"/checkpoints/{uploaded.id}", body).status_code == 200
    assert "warning" not in params(service, uploaded.id)


def test_what_no_rule_knows_is_reported_where_the_type_has_one_look(service: Service) -> None:
    uploaded = service.active()
    assert params(service, uploaded.id)["warning"] == f"{uploaded.name} does not look like Lora"
    annotator = service.active(checkpoint_type="Annotator")
    assert "warning" not in params(service, annotator.id)


def test_clients_cannot_write_what_the_service_finds(service: Service) -> None:
    claimed = {"message": "a", "architecture": "SDXL", "metadata": {"a": "b"}, "warning": ""}
    begun = service.begin(unique(), params=claimed)
    assert not {"architecture", "metadata", "warning"} & set(begun["checkpoint"]["params"])


def test_metadata_is_kept_within_bounds_and_the_important_first() -> None:
    many = {f"ss_{number}": "x" * 10_000 for number in range(1000)} | {"modelspec.title": "mine"}
    kept = bounded(many)
    assert next(iter(kept)) == "modelspec.title"
    assert kept["ss_0"] == "x" * (LONGEST_VALUE - 1) + "…"
    assert sum(len(name) + len(value) for name, value in kept.items()) <= LARGEST_METADATA
