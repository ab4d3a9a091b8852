"""Tests that an exported single file gives back every tensor of the pipeline, bit for bit."""

import json
import stat
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from gpu_worker.single_file_export import save_single_file, single_file_state_dict

TOKENIZER = Path(__file__).parents[2] / "gpu_worker" / "assets" / "clip_tokenizer"
# The real widths: diffusers tells SDXL's two text encoders apart by them.
TEXT_WIDTH, TEXT_2_WIDTH = 768, 1280


def tokenizer() -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(TOKENIZER, local_files_only=True)


def text_config(width: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=64,
        hidden_size=width,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        projection_dim=width,
        bos_token_id=0,
        eos_token_id=2,
    )


def vae(layers: int) -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 8, 16),
        layers_per_block=layers,
        norm_num_groups=4,
        sample_size=32,
    )


def sd1_pipeline(layers: int) -> StableDiffusionPipeline:
    torch.manual_seed(layers)
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 64, 64),
        layers_per_block=layers,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=8,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    )
    return StableDiffusionPipeline(
        vae=vae(layers),
        text_encoder=CLIPTextModel(text_config(TEXT_WIDTH)),
        tokenizer=tokenizer(),
        unet=unet,
        scheduler=DDIMScheduler(beta_schedule="scaled_linear"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def sdxl_pipeline() -> StableDiffusionXLPipeline:
    torch.manual_seed(7)
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 64, 64),
        layers_per_block=2,
        cross_attention_dim=TEXT_WIDTH + TEXT_2_WIDTH,
        attention_head_dim=(2, 4, 8),
        transformer_layers_per_block=(1, 1, 2),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + TEXT_2_WIDTH,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    )
    return StableDiffusionXLPipeline(
        vae=vae(2),
        text_encoder=CLIPTextModel(text_config(TEXT_WIDTH)),
        text_encoder_2=CLIPTextModelWithProjection(text_config(TEXT_2_WIDTH)),
        tokenizer=tokenizer(),
        tokenizer_2=tokenizer(),
        unet=unet,
        scheduler=DDIMScheduler(beta_schedule="scaled_linear"),
        add_watermarker=False,
    )


def write_config_folder(pipeline: Any, folder: Path) -> None:
    """The pipeline's folder without its weights, which is what ``from_single_file(config=…)`` reads."""
    pipeline.save_pretrained(folder)
    for weights in folder.rglob("*.safetensors"):
        weights.unlink()
    index = json.loads((folder / "model_index.json").read_text())
    assert index["unet"] == ["diffusers", "UNet2DConditionModel"]


def differing_tensors(one: Any, other: Any) -> list[str]:
    """Names of the tensors that are not bit-equal, missing ones included."""
    differing = []
    for part in ("unet", "vae", "text_encoder", "text_encoder_2"):
        if getattr(one, part, None) is None:
            continue
        first, second = getattr(one, part).state_dict(), getattr(other, part).state_dict()
        for key in first.keys() | second.keys():
            if key not in first or key not in second or not torch.equal(first[key], second[key]):
                differing.append(f"{part}.{key}")
    return differing


@pytest.mark.parametrize("layers", [1, 2])
def test_an_sd1_pipeline_comes_back_bit_equal(tmp_path: Path, layers: int) -> None:
    pipeline = sd1_pipeline(layers)
    write_config_folder(pipeline, tmp_path / "config")
    save_single_file(pipeline, tmp_path / "model.safetensors", dtype=torch.float32)
    loaded = StableDiffusionPipeline.from_single_file(
        str(tmp_path / "model.safetensors"), config=str(tmp_path / "config"), local_files_only=True
    )
    assert differing_tensors(pipeline, loaded) == []


def test_an_sdxl_pipeline_comes_back_bit_equal(tmp_path: Path) -> None:
    pipeline = sdxl_pipeline()
    write_config_folder(pipeline, tmp_path / "config")
    save_single_file(pipeline, tmp_path / "model.safetensors", dtype=torch.float32)
    loaded = StableDiffusionXLPipeline.from_single_file(
        str(tmp_path / "model.safetensors"), config=str(tmp_path / "config"), local_files_only=True
    )
    assert differing_tensors(pipeline, loaded) == []


def test_the_file_is_half_precision_readable_by_all_and_carries_its_metadata(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_single_file(sd1_pipeline(1), path, metadata={"sdfleet.sample_size": "8"})
    with safe_open(path, framework="pt") as file:
        assert file.metadata() == {"format": "pt", "sdfleet.sample_size": "8"}
        assert {tensor.dtype for tensor in load_file(path).values()} == {torch.float16}
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_the_names_are_those_of_the_published_checkpoints() -> None:
    names = single_file_state_dict(sd1_pipeline(2)).keys()
    published = {
        "model.diffusion_model.input_blocks.0.0.weight",
        "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight",
        "model.diffusion_model.input_blocks.3.0.op.weight",
        "model.diffusion_model.output_blocks.2.1.conv.weight",
        "model.diffusion_model.output_blocks.5.2.conv.weight",
        "first_stage_model.decoder.up.2.upsample.conv.weight",
        "first_stage_model.encoder.mid.attn_1.proj_out.weight",
        "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight",
    }
    assert published - names == set()


def test_a_value_too_large_for_half_precision_is_refused_and_leaves_the_former_file(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"former")
    pipeline = sd1_pipeline(1)
    with torch.no_grad():
        pipeline.unet.conv_in.bias[0] = 1e6
    with pytest.raises(ValueError, match=r"input_blocks\.0\.0\.bias"):
        save_single_file(pipeline, path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.safetensors"]
    assert path.read_bytes() == b"former"
