"""What a UNet predicts: told by files, and pictures that are those of diffusers for each kind."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler, LCMScheduler
from PIL import Image

from gpu_worker.architecture import Family
from gpu_worker.device import Device
from gpu_worker.errors import RequestFault
from gpu_worker.loading import load_checkpoint
from gpu_worker.noise_level import noise_level
from gpu_worker.pipelines import ModelMemory
from gpu_worker.safetensors_header import read_header
from gpu_worker.samplers import choose_sampling, make_scheduler
from gpu_worker.single_file import SCHEDULER_CONFIG, _prediction
from tests.gpu_worker import house, tiny
from tests.gpu_worker.contexts import context, encoded

NOISE = {key: SCHEDULER_CONFIG[key] for key in ("beta_start", "beta_end", "beta_schedule")}
STEPS, SEED, SCALE = 6, 7, 4.0


def kind(path: Path, device: Device) -> str:
    """The prediction type of a file."""
    return str(load_checkpoint(path, path.name, device)[1].components["scheduler"]["prediction_type"])


@pytest.mark.parametrize(
    ("metadata", "extra", "answer", "found"),
    [
        ({}, (), 0.5, "epsilon"),
        ({}, (), -1.0, "v_prediction"),
        ({"modelspec.prediction_type": "v"}, (), 0.5, "v_prediction"),
        ({"modelspec.prediction_type": "epsilon"}, (), -1.0, "epsilon"),
        ({"modelspec.architecture": "stable-diffusion-v2-768-v"}, (), 0.5, "v_prediction"),
        ({"modelspec.architecture": "stable-diffusion-v2-512"}, (), 0.5, "epsilon"),
        ({}, ("v_pred",), 0.5, "v_prediction"),
    ],
)
def test_sd2_of_velocity_and_of_noise_are_told_apart(
    tmp_path: Path,
    device: Device,
    metadata: dict[str, str],
    extra: tuple[str, ...],
    answer: float,
    found: str,
) -> None:
    path = tiny.write_sd2(tmp_path / "sd2.safetensors", metadata, extra, answer)
    assert kind(path, device) == found


def test_the_bias_of_a_full_size_unet_tells_without_running_it(tmp_path: Path, device: Device) -> None:
    """The tensor of SD 2.x's last attention: spread wide in the 768-v model, narrowly in the base."""
    source = tiny.write_sd2(tmp_path / "sd2.safetensors", answer=0.5)
    probe = "model.diffusion_model.output_blocks.11.1.transformer_blocks.0.norm1.bias"
    for spread, found in ((0.2, "v_prediction"), (0.02, "epsilon")):

        def widen(tensors: dict[str, torch.Tensor], spread: float = spread) -> None:
            tensors[probe] = torch.linspace(-spread, spread, 64)

        path = tiny.rewrite(source, tmp_path / f"{found}.safetensors", widen)
        told = _prediction(path, read_header(path, "x"), Family.SD2)
        assert told["prediction_type"] == found


def with_keys(source: Path, path: Path, *keys: str) -> Path:
    return tiny.rewrite(source, path, lambda tensors: tensors.update({key: torch.zeros(1) for key in keys}))


def ours(memory: ModelMemory, path: Path, **body: Any) -> Image.Image:
    asked = {"prompt": "a cat", "steps": STEPS, "seed": SEED, "cfg_scale": SCALE} | body
    return house.run(memory, "txt2img", {"Stable-diffusion": [path]}, **asked).pictures[0].image


def theirs(memory: ModelMemory, path: Path, scheduler: Any, **options: Any) -> Image.Image:
    """The same weights in a bare pipeline of diffusers."""
    work = context(memory.device, "txt2img", {}, {"Stable-diffusion": [path]}, memory)
    pipeline = memory.checkpoint(work.job.models[0], work.open_file).pipeline
    bare = type(pipeline).from_pipe(pipeline, scheduler=scheduler)
    bare.set_progress_bar_config(disable=True)
    asked = {"num_inference_steps": STEPS, "guidance_scale": SCALE, "width": 64, "height": 64} | options
    generator = torch.Generator().manual_seed(SEED)
    made = bare("a cat", generator=generator, output_type="pil", **asked).images[0]
    assert isinstance(made, Image.Image)
    return made


def apart(one: Image.Image, other: Image.Image) -> float:
    return float(np.abs(house.pixels(one) - house.pixels(other)).mean())


def sigmas_of(sampler: str, schedule: str, has_no_last_signal: bool, steps: int = STEPS) -> list[float]:
    base = SCHEDULER_CONFIG | {
        "prediction_type": "v_prediction",
        "rescale_betas_zero_snr": has_no_last_signal,
    }
    scheduler = make_scheduler(choose_sampling(sampler, schedule), base)
    scheduler.set_timesteps(steps)
    return [float(sigma) for sigma in scheduler.sigmas[:-1]]


@pytest.mark.parametrize("family", ["sd2", "xl", "xl without a last signal"])
def test_velocity_is_made_into_the_picture_of_diffusers(
    memory: ModelMemory, models: Path, tmp_path: Path, family: str
) -> None:
    zero = family.endswith("signal")
    keys = ("v_pred", "ztsnr") if zero else ("v_pred",)
    if family == "sd2":
        path = tiny.write_sd2(tmp_path / "v.safetensors", extra=keys)
    else:
        path = with_keys(models / "xl.safetensors", tmp_path / "v.safetensors", *keys)
    for sampler, make in (("DDIM", DDIMScheduler), ("Euler", EulerDiscreteScheduler)):
        options = (
            {"steps_offset": 1, "clip_sample": False, "set_alpha_to_one": False} if sampler == "DDIM" else {}
        )
        both = []
        for prediction in ("v_prediction", "epsilon"):
            scheduler = make(**NOISE, **options, prediction_type=prediction, rescale_betas_zero_snr=zero)
            more = {"sigmas": sigmas_of("Euler", "Uniform", zero)} if sampler == "Euler" else {}
            both.append(theirs(memory, path, scheduler, **more))
        made = ours(memory, path, sampler_name=sampler, scheduler="Uniform")
        assert apart(made, both[0]) < 1, sampler
        assert apart(made, both[1]) > 5, sampler


def test_few_steps_of_a_turbo_model_are_those_of_diffusers(memory: ModelMemory, models: Path) -> None:
    """SDXL Turbo and Lightning: from the noisiest step on, evenly, and without guidance."""
    path = models / "xl.safetensors"
    made = ours(memory, path, sampler_name="Euler", scheduler="SGM Uniform", steps=4, cfg_scale=1)
    trailing = EulerDiscreteScheduler(**NOISE, timestep_spacing="trailing")
    wanted = theirs(memory, path, trailing, num_inference_steps=4, guidance_scale=1.0)
    usual = ours(memory, path, sampler_name="Euler", scheduler="Uniform", steps=4, cfg_scale=1)
    assert apart(made, wanted) < 1
    assert apart(usual, wanted) > 2 * apart(made, wanted)


def test_lcm_is_that_of_diffusers(memory: ModelMemory, models: Path) -> None:
    path = models / "sd1.safetensors"
    made = ours(memory, path, sampler_name="LCM", steps=4, cfg_scale=1)
    scheduler = LCMScheduler(**NOISE, clip_sample=False, set_alpha_to_one=False)
    wanted = theirs(memory, path, scheduler, num_inference_steps=4, guidance_scale=1.0)
    assert apart(made, wanted) < 1


@pytest.mark.parametrize("key", ["edm_mean", "edm_vpred.sigma_max"])
def test_another_kind_of_noise_is_refused(models: Path, tmp_path: Path, device: Device, key: str) -> None:
    path = with_keys(models / "xl.safetensors", tmp_path / "edm.safetensors", key)
    with pytest.raises(RequestFault, match="trained with EDM's noise"):
        load_checkpoint(path, "edm", device)


def test_a_schedule_that_ends_in_nothing_but_noise_has_numbers_everywhere() -> None:
    base = SCHEDULER_CONFIG | {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
    scheduler = make_scheduler(choose_sampling("LCM", None), base)
    scheduler.set_timesteps(4)
    level = noise_level(scheduler, 0)
    picture, noise = torch.zeros(1, 4, 2, 2), torch.ones(1, 4, 2, 2)
    torch.testing.assert_close(level.noised(picture, noise), noise)


def test_an_sdxl_inpainting_checkpoint_sees_the_mask_and_the_masked_picture(
    memory: ModelMemory, models: Path, tmp_path: Path
) -> None:
    name = "model.diffusion_model.input_blocks.0.0.weight"

    def widen(tensors: dict[str, torch.Tensor]) -> None:
        five = torch.randn(32, 5, 3, 3, generator=torch.Generator().manual_seed(0)).half()
        tensors[name] = torch.cat([tensors[name], five], dim=1)

    path = tiny.rewrite(models / "xl.safetensors", tmp_path / "inpaint.safetensors", widen)
    work = context(memory.device, "img2img", {}, {"Stable-diffusion": [path]}, memory)
    unet = memory.checkpoint(work.job.models[0], work.open_file).pipeline.unet
    seen: list[torch.Tensor] = []
    unet.register_forward_pre_hook(lambda _unet, arguments: seen.append(arguments[0]))
    mask = Image.new("L", (64, 64), 0)
    mask.paste(255, (32, 0, 64, 64))
    source = encoded(Image.new("RGB", (64, 64), (200, 30, 30)))
    body = {"init_images": [source], "mask": encoded(mask), "mask_blur": 0, "inpaint_full_res": False}
    made = house.run(memory, "img2img", {"Stable-diffusion": [path]}, prompt="a cat", steps=3, **body)
    assert made.pictures[0].image.size == (64, 64)
    assert seen[-1].shape[1] == 9
    assert seen[-1][0, 4, :, :4].max() == 0
    assert seen[-1][0, 4, :, 4:].min() == 1
