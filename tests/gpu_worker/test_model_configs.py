"""The configurations of the published models, derived from headers with their real shapes."""

from typing import Any

import pytest
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from gpu_worker import single_file_export as export
from gpu_worker.architecture import detect
from gpu_worker.errors import RequestFault
from gpu_worker.model_configs import Shapes, text_encoder_configs, unet_config, vae_config
from gpu_worker.safetensors_header import Header, TensorEntry

CROSS = "CrossAttnDownBlock2D"
UP = "CrossAttnUpBlock2D"
SD1_UNET: dict[str, Any] = {
    "block_out_channels": [320, 640, 1280, 1280],
    "down_block_types": [CROSS, CROSS, CROSS, "DownBlock2D"],
    "up_block_types": ["UpBlock2D", UP, UP, UP],
    "layers_per_block": 2,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}
XL_UNET: dict[str, Any] = {
    "block_out_channels": [320, 640, 1280],
    "down_block_types": ["DownBlock2D", CROSS, CROSS],
    "up_block_types": [UP, UP, "UpBlock2D"],
    "layers_per_block": 2,
    "transformer_layers_per_block": [1, 2, 10],
    "cross_attention_dim": 2048,
    "attention_head_dim": [5, 10, 20],
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
CLIP_L = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
CLIP_G = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20}
KL_VAE: dict[str, Any] = {
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
}


def header_of(*parts: dict[str, Any]) -> Header:
    tensors = {
        key: TensorEntry("F16", tuple(value.shape), 0, 0) for part in parts for key, value in part.items()
    }
    return Header(tensors, {})


@pytest.fixture(scope="module")
def sd1_header() -> Header:
    with init_empty_weights():
        text = CLIPTextModel(CLIPTextConfig(**CLIP_L))
        unet, vae = UNet2DConditionModel(**SD1_UNET), AutoencoderKL(**KL_VAE)
        return header_of(
            export.convert_unet(unet),
            export.convert_vae(vae),
            export.convert_clip_l(text, export.SD1_TEXT_PREFIX),
        )


@pytest.fixture(scope="module")
def xl_header() -> Header:
    with init_empty_weights():
        first = CLIPTextModel(CLIPTextConfig(**CLIP_L))
        second = CLIPTextModelWithProjection(CLIPTextConfig(**CLIP_G, projection_dim=1280))
        unet, vae = UNet2DConditionModel(**XL_UNET), AutoencoderKL(**KL_VAE)
        return header_of(
            export.convert_unet(unet),
            export.convert_vae(vae),
            export.convert_clip_l(first, export.SDXL_TEXT_PREFIX),
            export.convert_open_clip(second, export.SDXL_TEXT_2_PREFIX),
        )


def holds(config: dict[str, Any], expected: dict[str, Any]) -> bool:
    return {key: config[key] for key in expected} == expected


def test_stable_diffusion_1_5_is_derived_from_its_shapes(sd1_header: Header) -> None:
    architecture, shapes = detect(sd1_header, "sd15"), Shapes(sd1_header, "sd15")
    unet = unet_config(shapes, architecture, 64)
    assert holds(unet, SD1_UNET)
    assert unet["transformer_layers_per_block"] == [1, 1, 1, 1]
    assert unet["use_linear_projection"] is False
    assert holds(text_encoder_configs(shapes, architecture.family)["text_encoder"], CLIP_L)
    vae = vae_config(shapes, architecture.family, 64)
    assert holds(vae, KL_VAE | {"sample_size": 512, "scaling_factor": 0.18215, "norm_num_groups": 32})


def test_sdxl_base_is_derived_from_its_shapes(xl_header: Header) -> None:
    architecture, shapes = detect(xl_header, "xl"), Shapes(xl_header, "xl")
    assert holds(unet_config(shapes, architecture, 128), XL_UNET)
    texts = text_encoder_configs(shapes, architecture.family)
    assert holds(texts["text_encoder"], CLIP_L)
    assert holds(texts["text_encoder_2"], CLIP_G | {"projection_dim": 1280, "hidden_act": "gelu"})


def test_metadata_says_what_shapes_cannot(sd1_header: Header) -> None:
    stated = Header(
        sd1_header.tensors, {"sdfleet.unet_attention_heads": "4", "sdfleet.text_attention_heads": "6"}
    )
    architecture, shapes = detect(stated, "x"), Shapes(stated, "x")
    assert unet_config(shapes, architecture, 64)["attention_head_dim"] == 4
    assert text_encoder_configs(shapes, architecture.family)["text_encoder"]["num_attention_heads"] == 6


def test_metadata_that_is_no_number_is_refused(sd1_header: Header) -> None:
    stated = Header(sd1_header.tensors, {"sdfleet.vae_norm_num_groups": "many"})
    with pytest.raises(RequestFault, match="vae_norm_num_groups='many'"):
        vae_config(Shapes(stated, "x"), detect(stated, "x").family, 64)


def test_a_hole_in_the_blocks_is_refused(sd1_header: Header) -> None:
    tensors = {key: entry for key, entry in sd1_header.tensors.items() if ".input_blocks.4." not in key}
    holed = Header(tensors, {})
    with pytest.raises(RequestFault, match="blocks are missing"):
        unet_config(Shapes(holed, "x"), detect(holed, "x"), 64)
