"""Real single files with random weights, loaded offline; files that cannot be loaded say why."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from gpu_worker.architecture import Family
from gpu_worker.device import Device
from gpu_worker.errors import RequestFault
from gpu_worker.loading import load_checkpoint, load_vae
from gpu_worker.single_file import inspect
from gpu_worker.single_file_export import convert_vae
from tests.gpu_worker import tiny

UNET_IN = "model.diffusion_model.input_blocks.0.0.weight"
LATE_UNET = "model.diffusion_model.output_blocks.1.0.out_layers.3.weight"
TEXT_LAYER = "cond_stage_model.transformer.text_model.encoder.layers.1.mlp.fc1.weight"
VAE_OUT = "first_stage_model.decoder.conv_out.weight"


def same_weights(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    """Bit-equal after the file's fp16."""
    ours, theirs = first.state_dict(), second.state_dict()
    return ours.keys() == theirs.keys() and all(
        torch.equal(value.half().float(), theirs[key])
        for key, value in ours.items()
        if value.is_floating_point()
    )


def test_every_tensor_of_sd1_arrives(models: Path, device: Device) -> None:
    pipeline, description = load_checkpoint(models / "sd1.safetensors", "sd1", device)
    original = tiny.sd1_pipeline()
    assert description.family is Family.SD1
    for component in ("unet", "vae", "text_encoder"):
        assert same_weights(getattr(original, component), getattr(pipeline, component)), component
    assert pipeline.unet.config.attention_head_dim == 8
    assert pipeline.unet.dtype == torch.float32


def test_every_tensor_of_sdxl_arrives(models: Path, device: Device) -> None:
    pipeline, description = load_checkpoint(models / "xl.safetensors", "xl", device)
    original = tiny.xl_pipeline()
    assert description.family is Family.SDXL
    for component in ("unet", "vae", "text_encoder", "text_encoder_2"):
        assert same_weights(getattr(original, component), getattr(pipeline, component)), component
    assert pipeline.vae.config.scaling_factor == 0.13025
    assert pipeline.tokenizer_2.pad_token_id == 0


@pytest.mark.parametrize("name", ["sd1", "xl"])
def test_the_loaded_model_computes_what_the_original_does(models: Path, device: Device, name: str) -> None:
    pipeline, _ = load_checkpoint(models / f"{name}.safetensors", name, device)
    original = tiny.sd1_pipeline() if name == "sd1" else tiny.xl_pipeline()
    original.set_progress_bar_config(disable=True)
    for model in (original.unet, original.vae, original.text_encoder):
        model.half().float()
    if name == "xl":
        original.text_encoder_2.half().float()

    def latents(pipe: Any) -> torch.Tensor:
        generator = torch.Generator().manual_seed(3)
        return pipe(
            "a cat", width=64, height=64, num_inference_steps=3, generator=generator, output_type="latent"
        ).images

    assert torch.allclose(latents(pipeline), latents(original), atol=2e-3)


def without(*keys: str) -> Any:
    return lambda tensors: [tensors.pop(key) for key in keys]


def replaced(key: str, shape: tuple[int, ...]) -> Any:
    return lambda tensors: tensors.update({key: torch.zeros(shape, dtype=torch.float16)})


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (without(LATE_UNET), f'lacks the tensor "{LATE_UNET}"'),
        (without(TEXT_LAYER), f'lacks the tensor "{TEXT_LAYER}"'),
        (without(VAE_OUT), f'lacks the tensor "{VAE_OUT}"'),
        (replaced(LATE_UNET, (32, 32, 1, 1)), r"has shape \[32, 32, 1, 1\], \[64, 64, 3, 3\] is needed"),
        (replaced(UNET_IN, (32, 4, 0, 3)), "has shape"),
        (replaced(UNET_IN, (32, 8, 3, 3)), "takes 8 channels"),
        (replaced(UNET_IN, (33, 4, 3, 3)), "cannot be used"),
        (lambda tensors: tensors.pop(UNET_IN), "no Stable Diffusion checkpoint"),
    ],
)
def test_a_checkpoint_with_wrong_tensors_names_one(
    models: Path, tmp_path: Path, device: Device, change: Any, sentence: str
) -> None:
    path = tiny.rewrite(models / "sd1.safetensors", tmp_path / "bad.safetensors", change)
    with pytest.raises(RequestFault, match=sentence):
        load_checkpoint(path, "bad.safetensors", device)


def test_a_text_encoder_that_is_gone_is_named(models: Path, tmp_path: Path, device: Device) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        for key in [key for key in tensors if key.startswith("cond_stage_model")]:
            del tensors[key]

    path = tiny.rewrite(models / "sd1.safetensors", tmp_path / "bad.safetensors", change)
    with pytest.raises(RequestFault, match="has a UNet but no text encoder"):
        load_checkpoint(path, "bad.safetensors", device)


@pytest.mark.parametrize(
    ("key", "what"),
    [
        ("lora_unet_down_blocks_0.lora_down.weight", "a LoRA"),
        ("control_model.input_blocks.0.0.weight", "a ControlNet"),
        ("emb_params", "a textual inversion"),
        ("decoder.conv_in.weight", "a VAE"),
        ("something.else", 'lacks the tensor "model.diffusion_model'),
    ],
)
def test_other_weight_files_are_named(tmp_path: Path, key: str, what: str) -> None:
    save_file({key: torch.zeros(4, 4)}, tmp_path / "other.safetensors")
    with pytest.raises(RequestFault, match=what):
        inspect(tmp_path / "other.safetensors", "other.safetensors")


def test_a_model_larger_than_memory_is_refused_before_it_is_read(models: Path, device: Device) -> None:
    small = Device(device.torch_device, "small", device.dtype, device.vae_dtype, memory_bytes=1_000_000)
    with pytest.raises(RequestFault, match="this worker has 0"):
        load_checkpoint(models / "sd1.safetensors", "sd1", small)


@pytest.mark.parametrize("prefix", ["", "first_stage_model."])
def test_a_vae_file_is_loaded_in_both_layouts(tmp_path: Path, device: Device, prefix: str) -> None:
    original = tiny.vae(seed=7)
    tensors = {prefix + key.removeprefix("first_stage_model."): t for key, t in convert_vae(original).items()}
    save_file(
        {key: value.contiguous() for key, value in tensors.items()}, tmp_path / "v.safetensors", tiny.METADATA
    )
    loaded = load_vae(tmp_path / "v.safetensors", "v", Family.SD1, device)
    assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in original.state_dict().items())
