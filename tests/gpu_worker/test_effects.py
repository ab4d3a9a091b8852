"""Another value of a parameter makes another picture: what a body says reaches the model."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gpu_worker.pipelines import ModelMemory
from house import shapes
from house.architecture import METADATA
from tests.gpu_worker import house, tiny
from tests.gpu_worker.contexts import encoded

Body = dict[str, Any]

WORDS = "a red circle on a white background"
SOURCE = Image.fromarray(shapes.paint(shapes.draw_mask("circle", 32, 32, 19), "red", "white"))
MASK = Image.new("L", (64, 64), 0)
MASK.paste(255, (20, 12, 44, 36))
FAINT = Image.new("RGBA", (64, 64), (0, 0, 0, 60))
FAINT.paste((0, 0, 0, 160), (20, 12, 44, 36))

CHURNED: Body = {"sampler_name": "Euler", "s_churn": 30}
RESIZED: Body = {"width": 96, "height": 96, "seed_resize_from_w": 64, "seed_resize_from_h": 64}
HIRES: Body = {"enable_hr": True, "hr_scale": 1.5, "denoising_strength": 0.7, "hr_second_pass_steps": 3}
FIRST_PHASE: Body = {"enable_hr": True, "width": 96, "height": 96, "firstphase_width": 64, "steps": 2}
FROM_PICTURE: Body = {"init_images": [encoded(SOURCE)], "denoising_strength": 0.8, "inpaint_full_res": False}
MASKED: Body = FROM_PICTURE | {"mask": encoded(MASK), "mask_blur": 0}
WIDE: Body = FROM_PICTURE | {"width": 96}


def settings(**values: Any) -> Body:
    return {"override_settings": values}


def made(memory: ModelMemory, task: str, body: Body, models: Any = None) -> bytes:
    """The pixels of the first picture."""
    result = house.run(memory, task, models, **({"prompt": WORDS, "steps": 5} | body))
    return house.pixels(result.pictures[0].image).tobytes()


@pytest.mark.parametrize(
    ("task", "common", "one", "other"),
    [
        ("txt2img", {}, {"steps": 4}, {"steps": 5}),
        ("txt2img", {}, {"sampler_name": "Euler"}, {"sampler_name": "Heun"}),
        ("txt2img", {"sampler_name": None}, {"sampler_index": "Euler"}, {"sampler_index": "Heun"}),
        ("txt2img", {}, {"scheduler": "Automatic"}, {"scheduler": "Karras"}),
        ("txt2img", {"sampler_name": "Euler a"}, {"eta": 1}, {"eta": 0.4}),
        ("txt2img", {}, {"s_churn": 0}, {"s_churn": 30}),
        ("txt2img", CHURNED, {"s_tmin": 0}, {"s_tmin": 5}),
        ("txt2img", CHURNED, {"s_tmax": 0}, {"s_tmax": 2}),
        ("txt2img", {"sampler_name": "Euler a"}, {"s_noise": 1}, {"s_noise": 1.05}),
        ("txt2img", {}, {"s_min_uncond": 0}, {"s_min_uncond": 5}),
        ("txt2img", {"s_min_uncond": 5}, {}, settings(s_min_uncond_all=True)),
        ("txt2img", {}, {}, settings(skip_early_cond=0.3)),
        ("txt2img", {"subseed_strength": 0.3}, {"subseed": 3}, {"subseed": 4}),
        ("txt2img", {"subseed": 3}, {"subseed_strength": 0.3}, {"subseed_strength": 0.4}),
        ("txt2img", RESIZED, {}, {"seed_resize_from_w": 80}),
        ("txt2img", RESIZED, {}, {"seed_resize_from_h": 80}),
        ("txt2img", {}, {}, settings(CLIP_stop_at_last_layers=2)),
        ("txt2img", {"sampler_name": "Euler a"}, {}, settings(eta_noise_seed_delta=31337)),
        ("txt2img", HIRES, {}, {"denoising_strength": 0.5}),
        ("txt2img", HIRES, {}, {"hr_upscaler": "Latent (nearest)"}),
        ("txt2img", HIRES, {}, {"hr_second_pass_steps": 5}),
        ("txt2img", HIRES, {}, {"hr_sampler_name": "Heun"}),
        ("txt2img", HIRES, {}, {"hr_scheduler": "Karras"}),
        ("txt2img", HIRES, {}, {"hr_prompt": "a blue square"}),
        ("txt2img", HIRES, {}, {"hr_negative_prompt": "red"}),
        ("txt2img", HIRES, {}, {"hr_cfg": 2}),
        ("txt2img", FIRST_PHASE, {"firstphase_height": 64}, {"firstphase_height": 80}),
        ("img2img", FROM_PICTURE, {}, {"denoising_strength": 0.5}),
        ("img2img", FROM_PICTURE, {}, {"initial_noise_multiplier": 1.1}),
        ("img2img", FROM_PICTURE, {}, {"mask": encoded(MASK)}),
        ("img2img", WIDE, {"resize_mode": 0}, {"resize_mode": 1}),
        ("img2img", WIDE, {"resize_mode": 1}, {"resize_mode": 2}),
        ("img2img", MASKED, {}, {"mask_blur": 3}),
        ("img2img", MASKED, {}, {"inpainting_mask_invert": 1}),
        ("img2img", MASKED, {}, {"mask_invert": 1}),
        ("img2img", MASKED, {"inpainting_fill": 0}, {"inpainting_fill": 1}),
        ("img2img", MASKED, {"inpainting_fill": 2}, {"inpainting_fill": 3}),
        ("img2img", MASKED, {}, {"inpaint_full_res": True}),
        ("img2img", MASKED | {"inpaint_full_res": True}, {}, {"inpaint_full_res_padding": 12}),
        ("img2img", MASKED | {"mask": encoded(FAINT)}, {}, {"mask_round": False}),
    ],
)
def test_another_value_makes_another_picture(
    memory: ModelMemory, task: str, common: Body, one: Body, other: Body
) -> None:
    pictures = [made(memory, task, common | value) for value in (one, other)]
    assert pictures[0] != pictures[1]
    assert pictures[0] == made(memory, task, common | one)


@pytest.mark.parametrize(
    ("task", "common", "said", "said_otherwise"),
    [
        ("txt2img", {}, {"sampler_name": "Heun"}, {"sampler_name": "", "sampler_index": "Heun"}),
        ("txt2img", {"sampler_name": "Euler a"}, {"eta": 0.4}, settings(eta_ancestral=0.4)),
        ("txt2img", {"sampler_name": "DDIM"}, {"eta": 0.4}, settings(eta_ddim=0.4)),
        ("txt2img", {}, {"s_churn": 30}, settings(s_churn=30)),
        ("txt2img", CHURNED, {"s_tmin": 5}, settings(s_tmin=5)),
        ("txt2img", CHURNED, {"s_tmax": 2}, settings(s_tmax=2)),
        ("txt2img", {"sampler_name": "Euler a"}, {"s_noise": 1.05}, settings(s_noise=1.05)),
        ("txt2img", {}, {"s_min_uncond": 5}, settings(s_min_uncond=5)),
        ("img2img", MASKED, {"inpainting_mask_invert": 1}, {"mask_invert": 1}),
        ("img2img", MASKED | {"mask_blur": None}, {"mask_blur": 3}, {"mask_blur_x": 3, "mask_blur_y": 3}),
    ],
)
def test_what_is_said_in_other_words_makes_the_same_picture(
    memory: ModelMemory, task: str, common: Body, said: Body, said_otherwise: Body
) -> None:
    usual, one, other = (made(memory, task, common | body) for body in ({}, said, said_otherwise))
    assert one == other != usual


def test_sides_are_each_their_own(memory: ModelMemory) -> None:
    picture = house.run(memory, "txt2img", prompt=WORDS, steps=1, width=79, height=100).pictures[0].image
    assert picture.size == (72, 96)


def test_a_mask_is_softened_sideways_and_upwards_apart(memory: ModelMemory) -> None:
    """Where the picture changes beyond the mask: left and right of it, or above and below."""
    before = house.pixels(SOURCE)
    reached = {}
    for name in ("mask_blur_x", "mask_blur_y"):
        body = MASKED | {"mask_blur": None, "mask_blur_x": 0, "mask_blur_y": 0, name: 4}
        body |= {"prompt": "a blue square on a yellow background", "denoising_strength": 1}
        picture = house.run(memory, "img2img", **body).pictures[0].image
        changed = np.abs(house.pixels(picture) - before).max(axis=2) > 0
        columns, rows = changed.any(axis=0), changed.any(axis=1)
        reached[name] = columns[:20].any() and columns[44:].any(), rows[:12].any() and rows[36:].any()
    assert reached == {"mask_blur_x": (True, False), "mask_blur_y": (False, True)}


def weakened(folder: Path) -> Path:
    """The house checkpoint with a UNet that foresees less noise."""

    def weaken(tensors: dict[str, Any]) -> None:
        tensors["model.diffusion_model.out.2.weight"] *= 0.8

    return tiny.rewrite(house.CHECKPOINT, folder / "weak.safetensors", weaken, METADATA)


@pytest.mark.parametrize("name", ["weak", "weak.safetensors", "weak.safetensors [0123456789]"])
def test_the_checkpoint_that_is_named_makes_the_picture(
    memory: ModelMemory, tmp_path: Path, name: str
) -> None:
    weak = weakened(tmp_path)
    both = {"Stable-diffusion": [house.CHECKPOINT, weak]}
    named = made(memory, "txt2img", settings(sd_model_checkpoint=name), both)
    assert named == made(memory, "txt2img", {}, {"Stable-diffusion": [weak]})
    assert named != made(memory, "txt2img", {}, both) == made(memory, "txt2img", {})


def test_clip_skip_of_sdxls_first_encoder_makes_another_picture(memory: ModelMemory, models: Path) -> None:
    files = {"Stable-diffusion": [models / "xl.safetensors"]}
    usual, skipped, alone = (
        made(memory, "txt2img", settings(**body), files)
        for body in (
            {},
            {"CLIP_stop_at_last_layers": 1, "sdxl_clip_l_skip": True},
            {"CLIP_stop_at_last_layers": 1},
        )
    )
    assert skipped != usual == alone
