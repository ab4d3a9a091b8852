"""The WebUI's infotext, written and read."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from gpu_worker import infotext, text_to_image
from gpu_worker.errors import RequestFault
from gpu_worker.infotext_request import request_from, with_infotext
from gpu_worker.parameters import parse_text_to_image
from gpu_worker.pipelines import ModelMemory
from house import shapes
from tests.gpu_worker import house
from tests.gpu_worker.contexts import context, encoded

FIELDS: dict[str, object] = {
    "Steps": 20,
    "Sampler": "DPM++ 2M",
    "Schedule type": "Karras",
    "CFG scale": "7.5",
    "Seed": 5,
    "Size": "64x128",
    "Model hash": "0123456789",
    "Model": "shapes, v1: best",
    "VAE": None,
    "Clip skip": 2,
}


def test_the_text_has_the_webuis_form() -> None:
    text = infotext.write("a cat", "a dog", FIELDS)
    assert text == (
        "a cat\nNegative prompt: a dog\nSteps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7.5, "
        'Seed: 5, Size: 64x128, Model hash: 0123456789, Model: "shapes, v1: best", Clip skip: 2, '
        "Version: sdfleet 0.1.0"
    )


def test_an_infotext_becomes_the_request_that_made_it() -> None:
    body = request_from(infotext.write("a cat,\nsleeping", "a dog", FIELDS))
    request = parse_text_to_image(body, drawn_seed=0)
    assert (request.prompt, request.negative_prompt) == ("a cat,\nsleeping", "a dog")
    assert (request.steps, request.seed, request.width, request.height) == (20, 5, 64, 128)
    assert (request.sampling.sampler, request.sampling.schedule) == ("DPM++ 2M", "Karras")
    assert (request.cfg_scale, request.clip_skip) == (7.5, 2)
    assert request.checkpoint == "shapes, v1: best"


def test_an_infotext_in_a_body_makes_the_same_picture(memory: ModelMemory) -> None:
    words = {"prompt": "a red circle on a white background", "negative_prompt": "blue, yellow: x"}
    first = house.run(memory, "txt2img", **words, cfg_scale=5.12345678, batch_size=2).pictures[1]
    nothing = context(memory.device, "txt2img", {}, {"Stable-diffusion": [house.CHECKPOINT]}, memory)
    again = text_to_image.run(replace(nothing, parameters={"infotext": first.infotext})).pictures[0]
    assert again.infotext == first.infotext
    assert np.abs(house.pixels(again.image) - house.pixels(first.image)).max() <= 1


SCENE = "a red circle on a white background, (blue: 1)"
LOOKED_AT = encoded(Image.fromarray(shapes.paint(shapes.draw_mask("circle", 32, 32, 19), "red", "white")))
HALF = Image.new("L", (64, 64), 0)
HALF.paste(255, (32, 0, 64, 64))
FROM_PICTURE = {"init_images": [LOOKED_AT], "denoising_strength": 0.712345678}
MASKED = FROM_PICTURE | {"mask": encoded(HALF)}


@pytest.mark.parametrize(
    ("task", "body"),
    [
        ("txt2img", {}),
        ("txt2img", {"cfg_scale": 5.123456789, "seed": 2**40, "batch_size": 2, "n_iter": 2}),
        ("txt2img", {"sampler_name": "DPM++ 2M", "scheduler": "Karras", "steps": 5}),
        ("txt2img", {"sampler_name": "DDIM", "eta": 0.333333333}),
        ("txt2img", {"sampler_name": "Euler a", "scheduler": "SGM Uniform"}),
        ("txt2img", {"override_settings": {"CLIP_stop_at_last_layers": 2}}),
        ("txt2img", {"sampler_name": "Euler a", "eta": 0.4, "s_noise": 1.05}),
        ("txt2img", {"sampler_name": "Euler a", "override_settings": {"eta_noise_seed_delta": 31337}}),
        ("txt2img", {"s_churn": 30, "s_tmin": 0.5, "s_tmax": 9.5, "scheduler": "Exponential"}),
        ("txt2img", {"s_min_uncond": 4.5, "steps": 6, "override_settings": {"s_min_uncond_all": True}}),
        ("txt2img", {"steps": 6, "override_settings": {"skip_early_cond": 0.35}}),
        ("txt2img", {"subseed": 11, "subseed_strength": 0.3, "seed_resize_from_w": 80, "width": 96}),
        ("txt2img", {"width": 96, "seed_resize_from_w": 64, "seed_resize_from_h": 80}),
        ("txt2img", {"tiling": True, "width": 96}),
        ("txt2img", {"prompt": "a red, blue: circle\nBREAK on white", "negative_prompt": "x\ny: z"}),
        ("txt2img", {"enable_hr": True, "hr_scale": 1.51, "denoising_strength": 0.61}),
        ("txt2img", {"enable_hr": True, "hr_resize_x": 96, "hr_resize_y": 80, "hr_cfg": 3.3}),
        (
            "txt2img",
            {
                "enable_hr": True,
                "hr_upscaler": "Lanczos",
                "hr_second_pass_steps": 2,
                "hr_sampler_name": "DDIM",
                "hr_scheduler": "Uniform",
                "hr_prompt": "a blue square, x: y",
                "hr_negative_prompt": "red",
                "firstphase_width": 64,
                "width": 96,
                "height": 96,
            },
        ),
        ("img2img", FROM_PICTURE),
        ("img2img", FROM_PICTURE | {"resize_mode": 2, "width": 96, "initial_noise_multiplier": 1.05}),
        ("img2img", MASKED),
        ("img2img", MASKED | {"mask_blur": 0, "inpainting_fill": 2, "inpaint_full_res": False}),
        ("img2img", MASKED | {"mask_blur_x": 2, "mask_blur_y": 5, "inpainting_mask_invert": 1}),
        ("img2img", MASKED | {"inpainting_fill": 1, "inpaint_full_res_padding": 7, "mask_round": False}),
        ("img2img", MASKED | {"inpainting_fill": 3, "sampler_name": "Heun"}),
    ],
)
def test_every_infotext_makes_its_picture_again(memory: ModelMemory, task: str, body: dict[str, Any]) -> None:
    made = house.run(memory, task, **{"prompt": SCENE, "steps": 3, **body})
    first = made.pictures[-1]
    pictures = {name: body[name] for name in ("init_images", "mask") if name in body}
    files = {"Stable-diffusion": [house.CHECKPOINT]}
    work = context(memory.device, task, {"infotext": first.infotext, **pictures}, files, memory)
    again = house.find_task(task, house.TASKS)(work)
    assert again.pictures[0].infotext == first.infotext
    difference = np.abs(house.pixels(again.pictures[0].image) - house.pixels(first.image))
    # A picture of a batch is within 1 of itself alone; the others are the same bit for bit.
    assert difference.max() <= (1 if body.get("batch_size", 1) > 1 else 0)
    assert again.info["unsupported"] == made.info["unsupported"] == []


def test_a_setting_that_an_infotext_says_is_in_effect(memory: ModelMemory) -> None:
    """Clip skip, as the WebUI writes it: without it the picture is another one."""
    body = {"prompt": SCENE, "steps": 3}
    usual = house.run(memory, "txt2img", **body).pictures[0]
    skipped = house.run(
        memory, "txt2img", **body, override_settings={"CLIP_stop_at_last_layers": 2}
    ).pictures[0]
    assert ", Clip skip: 2, " in skipped.infotext
    assert not np.array_equal(house.pixels(usual.image), house.pixels(skipped.image))


@pytest.mark.parametrize(
    ("said", "key", "value"),
    [
        ("Eta: 0.4", "eta", 0.4),
        ("Eta DDIM: 0.4", "eta", 0.4),
        ("Schedule type: Karras", "scheduler", "Karras"),
        ("Variation seed: 5", "subseed", 5),
        ("Variation seed strength: 0.2", "subseed_strength", 0.2),
        ("Denoising strength: 0.5", "denoising_strength", 0.5),
        ("NGMS: 2", "s_min_uncond", 2.0),
        ("Mask blur: 5", "mask_blur", 5.0),
        ("Refiner: other [0123]", "refiner_checkpoint", "other [0123]"),
        ("Refiner switch at: 0.6", "refiner_switch_at", 0.6),
        ("Hires checkpoint: other", "hr_checkpoint_name", "other"),
        ("Hires steps: 4", "hr_second_pass_steps", 4),
        ("Hires schedule type: Karras", "hr_scheduler", "Karras"),
        ("Face restoration: GFPGAN", "restore_faces", True),
        ("VAE: mine.safetensors", "override_settings.sd_vae", "mine.safetensors"),
        ("Clip skip: 2", "override_settings.CLIP_stop_at_last_layers", 2),
        ("ENSD: 31337", "override_settings.eta_noise_seed_delta", 31337),
        ("Skip Early CFG: 0.2", "override_settings.skip_early_cond", 0.2),
        ("NGMS all steps: True", "override_settings.s_min_uncond_all", True),
        ("Face restoration: GFPGAN", "override_settings.face_restoration_model", "GFPGAN"),
    ],
)
def test_every_field_of_the_webui_is_read(said: str, key: str, value: object) -> None:
    body = request_from(f"a cat\nSteps: 9, Seed: 1, Size: 64x64, {said}")
    flat = body | {f"override_settings.{name}": one for name, one in body["override_settings"].items()}
    assert flat[key] == value


def test_a_field_without_effect_is_reported() -> None:
    written = "a\nSteps: 9, Seed: 1, Size: 64x64, RNG: NV, Token merging ratio: 0.5, FP8 weight: Disable"
    request = parse_text_to_image(with_infotext({"infotext": written}), 0)
    assert request.unsupported == ("infotext: RNG", "infotext: Token merging ratio")
    assert (
        parse_text_to_image(with_infotext({"infotext": "a\nSteps: 9, Seed: 1, RNG: CPU"}), 0).unsupported
        == ()
    )


def test_the_bodys_own_values_come_first() -> None:
    written = infotext.write("a cat", "a dog", FIELDS)
    body = with_infotext({"infotext": written, "seed": 9, "override_settings": {"sd_vae": "mine"}})
    assert (body["seed"], body["prompt"], body["steps"]) == (9, "a cat", 20)
    assert body["override_settings"]["sd_vae"] == "mine"
    assert body["override_settings"]["CLIP_stop_at_last_layers"] == 2


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"infotext": 5}, "infotext must be text"),
        ({"infotext": "a\nSteps: many, Seed: 1, Size: 1x1"}, "'Steps' is 'many', which is no value of steps"),
        ({"infotext": "a\nSteps: 9, Seed: 1, Masked content: x"}, "no value of inpainting_fill"),
        ({"infotext": "a", "override_settings": [1]}, "override_settings must be an object"),
    ],
)
def test_an_infotext_that_makes_no_sense_is_refused(body: dict[str, Any], says: str) -> None:
    with pytest.raises(RequestFault, match=says):
        with_infotext(body)


def test_words_alone_are_a_prompt() -> None:
    assert request_from("a cat\nNegative prompt: a dog")["negative_prompt"] == "a dog"


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_is_written_exactly(value: float) -> None:
    assert float(infotext.exact(value)) == value


prompts = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=60).map(str.strip)


@given(prompt=prompts, negative=prompts, model=prompts.filter(bool))
def test_what_is_written_is_read_back(prompt: str, negative: str, model: str) -> None:
    fields = infotext.parse(infotext.write(prompt, negative, FIELDS | {"Model": model}))
    if not prompt.startswith(infotext.NEGATIVE_MARK):
        assert fields["Prompt"] == prompt
        assert fields["Negative prompt"] == negative
    assert fields["Model"] == model
    assert fields["Seed"] == "5"
