"""txt2img on the house checkpoint: what each parameter of a request does to the picture."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image
from safetensors.torch import save_file

from gpu_worker.loading import load_checkpoint
from gpu_worker.pipelines import ModelMemory
from gpu_worker.single_file_export import convert_vae
from tests.gpu_worker import house

WORDS = "a red circle on a white background"


def made(memory: ModelMemory, models: Any = None, **body: Any) -> Image.Image:
    return house.run(memory, "txt2img", models, **{"prompt": WORDS, **body}).pictures[0].image


def difference(one: Image.Image, other: Image.Image) -> float:
    return float(np.abs(house.pixels(one) - house.pixels(other)).mean())


def test_the_prompt_is_answered(memory: ModelMemory) -> None:
    for colour, shape, background in (("red", "circle", "white"), ("blue", "square", "yellow")):
        reading = house.read(made(memory, prompt=f"a {colour} {shape} on a {background} background"))
        assert (reading.foreground, reading.shape, reading.background) == (colour, shape, background)


def test_the_negative_prompt_pushes_away(memory: ModelMemory) -> None:
    """Where the prompt leaves the colour open, one that is pushed away is not drawn."""
    seeds = range(8)
    words = "a circle on a white background"
    shown = {
        negative: [
            house.read(
                made(memory, prompt=words, negative_prompt=negative, seed=seed, cfg_scale=7)
            ).foreground
            for seed in seeds
        ]
        for negative in ("", "red")
    }
    assert shown["red"].count("red") == 0
    assert shown["red"] != shown[""]


def test_a_seed_repeats_bit_for_bit(memory: ModelMemory) -> None:
    first, again, other = (made(memory, seed=seed) for seed in (3, 3, 4))
    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != other.tobytes()


def test_more_guidance_obeys_more(memory: ModelMemory) -> None:
    weak, strong, full = (made(memory, cfg_scale=scale) for scale in (1, 3, 7))
    reading = house.read(full)
    assert (reading.foreground, reading.shape, reading.background) == ("red", "circle", "white")
    assert difference(strong, full) < difference(weak, full)


def test_eta_adds_noise_on_the_way(memory: ModelMemory) -> None:
    plain, zero, noisy = (made(memory, sampler_name="DDIM", **body) for body in ({}, {"eta": 0}, {"eta": 1}))
    assert plain.tobytes() == zero.tobytes() != noisy.tobytes()
    assert house.read(noisy).shape == "circle"


def test_another_vae_changes_colours_and_not_the_scene(memory: ModelMemory, tmp_path: Path) -> None:
    """This VAE turns the house's last layer round: it decodes every colour as its opposite."""
    pipeline, _ = load_checkpoint(house.CHECKPOINT, house.CHECKPOINT.name, memory.device)
    vae: AutoencoderKL = pipeline.vae
    own_tensors = {key: value.clone().contiguous() for key, value in convert_vae(vae).items()}
    with torch.no_grad():
        vae.decoder.conv_out.weight.mul_(-1)
        vae.decoder.conv_out.bias.mul_(-1)
    turned = {key: value.contiguous() for key, value in convert_vae(vae).items()}
    save_file(turned, tmp_path / "opposite.safetensors", metadata={"sdfleet.vae_norm_num_groups": "4"})
    models = {"VAE": [tmp_path / "opposite.safetensors"]}
    usual, opposite = made(memory), made(memory, models)
    assert np.abs(house.pixels(usual) + house.pixels(opposite) - 255).max() <= 2
    save_file(own_tensors, tmp_path / "own.safetensors", metadata={"sdfleet.vae_norm_num_groups": "4"})
    both = {"VAE": [tmp_path / "own.safetensors", tmp_path / "opposite.safetensors"]}
    chosen = {
        name: made(memory, both, override_settings={"sd_vae": name}).tobytes()
        for name in ("opposite.safetensors", "opposite", "own.safetensors", "Automatic")
    }
    assert chosen["opposite.safetensors"] == chosen["opposite"] == opposite.tobytes()
    assert chosen["own.safetensors"] == chosen["Automatic"] == usual.tobytes()
    own = made(memory, models, override_settings={"sd_vae": "None"})
    assert own.tobytes() == usual.tobytes()
