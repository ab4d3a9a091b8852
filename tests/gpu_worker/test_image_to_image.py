"""img2img on the house checkpoint: what is kept, what follows the prompt, and what a mask leaves alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from gpu_worker import inpainting
from gpu_worker.denoising import Step
from gpu_worker.errors import RequestFault
from gpu_worker.image_parameters import parse_image_to_image
from gpu_worker.pipelines import ModelMemory
from gpu_worker.single_file_export import save_single_file
from gpu_worker.starts import first_step, steps_for
from gpu_worker.tasks import TaskResult
from house import shapes
from tests.gpu_worker import house, tiny
from tests.gpu_worker.contexts import Steps, context, encoded

RED_ON_WHITE = Image.fromarray(shapes.paint(shapes.draw_mask("circle", 32, 32, 19), "red", "white"))
WORDS = "a blue square on a yellow background"


def image_to_image(memory: ModelMemory, **parameters: Any) -> TaskResult:
    body = {"init_images": [encoded(RED_ON_WHITE)], "prompt": WORDS, "steps": 8}
    return house.run(memory, "img2img", **(body | parameters))


def half_mask() -> Image.Image:
    """Masks the right half."""
    mask = Image.new("L", (64, 64), 0)
    mask.paste(255, (32, 0, 64, 64))
    return mask


def test_a_low_strength_keeps_what_is_there(memory: ModelMemory) -> None:
    made = image_to_image(memory, prompt="", cfg_scale=1, denoising_strength=0.2).pictures[0].image
    reading = house.read(made)
    assert (reading.foreground, reading.shape, reading.background) == ("red", "circle", "white")
    assert np.abs(house.pixels(made) - house.pixels(RED_ON_WHITE)).mean() < 15


def test_a_high_strength_obeys_the_prompt(memory: ModelMemory) -> None:
    reading = house.read(image_to_image(memory, denoising_strength=0.9).pictures[0].image)
    assert (reading.foreground, reading.shape, reading.background) == ("blue", "square", "yellow")


def test_more_strength_changes_more(memory: ModelMemory) -> None:
    distances = [
        np.abs(
            house.pixels(
                image_to_image(memory, prompt="", cfg_scale=1, denoising_strength=strength).pictures[0].image
            )
            - house.pixels(RED_ON_WHITE)
        ).mean()
        for strength in (0.1, 0.5, 0.9)
    ]
    assert distances == sorted(distances)
    assert distances[2] > 3 * distances[0]


@pytest.mark.parametrize(
    ("steps", "strength", "done"), [(20, 0.75, 16), (20, 1.0, 20), (20, 0.5, 11), (20, 0.0, 1), (1, 0.3, 1)]
)
def test_as_many_steps_are_done_as_in_the_webui(steps: int, strength: float, done: int) -> None:
    assert steps - first_step(steps, strength) == done


def test_the_second_pass_of_hires_does_the_steps_that_are_asked_for() -> None:
    assert steps_for(20, 0.5) == 40
    assert steps_for(20, 1.0) == 20


def test_progress_counts_the_steps_that_are_done(memory: ModelMemory) -> None:
    body = house.SMALL | {"init_images": [encoded(RED_ON_WHITE)], "steps": 8, "denoising_strength": 0.5}
    work = context(memory.device, "img2img", body, {"Stable-diffusion": [house.CHECKPOINT]}, memory)
    house.find_task("img2img", house.TASKS)(work)
    assert isinstance(work.progress, Steps)
    assert work.progress.announced == [(1, 5)]
    assert [step for step, _, _ in work.progress.steps] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("sampler", "fill"),
    [
        *(("Euler", 0), ("Euler a", 1), ("DPM++ 2M", 2), ("DPM++ SDE", 3)),
        *(("Heun", 0), ("DDIM", 1), ("UniPC", 2), ("LMS", 3)),
    ],
)
def test_outside_of_the_mask_nothing_changes_to_the_pixel(
    memory: ModelMemory, sampler: str, fill: int
) -> None:
    made = image_to_image(
        memory,
        mask=encoded(half_mask()),
        sampler_name=sampler,
        inpainting_fill=fill,
        inpaint_full_res=False,
        mask_blur=0,
        steps=4,
        denoising_strength=1,
    ).pictures[0]
    kept = house.pixels(made.image)[:, :32] - house.pixels(RED_ON_WHITE)[:, :32]
    changed = np.abs(house.pixels(made.image)[:, 32:] - house.pixels(RED_ON_WHITE)[:, 32:])
    assert np.abs(kept).max() == 0
    assert changed.mean() > 20


@pytest.mark.parametrize("only_masked", [True, False])
def test_a_blurred_mask_changes_nothing_beyond_its_blur(memory: ModelMemory, only_masked: bool) -> None:
    mask = Image.new("L", (64, 64), 0)
    mask.paste(255, (40, 40, 56, 56))
    made = image_to_image(
        memory, mask=encoded(mask), mask_blur=2, inpaint_full_res=only_masked, inpaint_full_res_padding=4
    ).pictures[0]
    difference = np.abs(house.pixels(made.image) - house.pixels(RED_ON_WHITE)).max(axis=2)
    reach = 6  # the kernel of a blur of 2
    outside = np.ones((64, 64), dtype=bool)
    outside[40 - reach : 56 + reach, 40 - reach : 56 + reach] = False
    assert difference[outside].max() == 0
    assert difference[44:52, 44:52].mean() > 20
    assert ("Inpaint area: Only masked, Masked area padding: 4" in made.infotext) == only_masked
    assert "Mask blur: 2, " in made.infotext


def test_an_inverted_mask_draws_the_other_half(memory: ModelMemory) -> None:
    made = image_to_image(
        memory,
        mask=encoded(half_mask()),
        inpainting_mask_invert=1,
        mask_blur=0,
        inpaint_full_res=False,
        denoising_strength=1,
    ).pictures[0]
    difference = np.abs(house.pixels(made.image) - house.pixels(RED_ON_WHITE))
    assert difference[:, 32:].max() == 0
    assert difference[:, :32].mean() > 20
    assert "Mask mode: Inpaint not masked" in made.infotext


def test_only_masked_draws_a_whole_scene_inside_the_mask_of_a_large_picture(memory: ModelMemory) -> None:
    large = Image.new("RGB", (300, 200), (250, 250, 250))
    mask = Image.new("L", large.size, 0)
    mask.paste(255, (100, 40, 228, 168))
    made = image_to_image(
        memory, init_images=[encoded(large)], mask=encoded(mask), mask_blur=0, denoising_strength=1, steps=12
    ).pictures[0]
    assert made.image.size == large.size
    reading = house.read(made.image.crop((100, 40, 228, 168)).resize((64, 64)))
    assert (reading.foreground, reading.background) == ("blue", "yellow")
    difference = np.abs(house.pixels(made.image) - house.pixels(large)).max(axis=2)
    difference[40:168, 100:228] = 0
    assert difference.max() == 0


def test_an_empty_mask_draws_the_whole_picture_as_in_the_webui(memory: ModelMemory) -> None:
    made = image_to_image(memory, mask=encoded(Image.new("L", (64, 64), 0)), denoising_strength=0.9).pictures[
        0
    ]
    assert house.read(made.image).background == "yellow"


def test_a_batch_starts_each_picture_from_its_own_and_equals_them_alone(memory: ModelMemory) -> None:
    other = Image.fromarray(shapes.paint(shapes.draw_mask("star", 32, 32, 19), "green", "black"))
    both = image_to_image(
        memory,
        init_images=[encoded(RED_ON_WHITE), encoded(other)],
        prompt="",
        cfg_scale=1,
        denoising_strength=0.2,
    )
    assert [house.read(picture.image).foreground for picture in both.pictures] == ["red", "green"]
    alone = image_to_image(
        memory, init_images=[encoded(other)], prompt="", cfg_scale=1, denoising_strength=0.2, seed=8
    )
    assert np.abs(house.pixels(both.pictures[1].image) - house.pixels(alone.pictures[0].image)).max() <= 1


@pytest.mark.parametrize("mode", [0, 1, 2, 3])
def test_a_picture_of_another_shape_is_brought_to_the_size_asked_for(memory: ModelMemory, mode: int) -> None:
    wide = Image.new("RGB", (128, 64), (250, 250, 250))
    wide.paste(RED_ON_WHITE, (32, 0))
    made = image_to_image(
        memory, init_images=[encoded(wide)], resize_mode=mode, prompt="", cfg_scale=1, denoising_strength=0.1
    ).pictures[0]
    shown = house.read(made.image)
    assert made.image.size == (64, 64)
    assert (shown.foreground, shown.background) == ("red", "white")
    red = np.abs(house.pixels(made.image) - np.array(shapes.PALETTE["red"])).max(axis=2) < 70
    width, height = (int(np.ptp(np.flatnonzero(red.any(axis=side)))) + 1 for side in (0, 1))
    stretched = {0: 0.5, 1: 1.0, 2: 1.0, 3: 0.5}[mode]
    assert width / height == pytest.approx(stretched, abs=0.2)


def test_the_noise_multiplier_and_image_cfg_scale_are_said(memory: ModelMemory) -> None:
    plain = image_to_image(memory, denoising_strength=0.5)
    louder = image_to_image(memory, denoising_strength=0.5, initial_noise_multiplier=1.3, image_cfg_scale=1.5)
    assert "Noise multiplier: 1.3" in louder.pictures[0].infotext
    assert "Denoising strength: 0.5" in louder.pictures[0].infotext
    assert louder.info["denoising_strength"] == 0.5
    assert any("image_cfg_scale" in comment for comment in louder.info["comments"])
    assert house.pixels(plain.pictures[0].image).tolist() != house.pixels(louder.pictures[0].image).tolist()


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"init_images": []}, "init_images must be a list of at least one picture"),
        ({"init_images": ["https://example.org/x.png"]}, r"init_images\[0\] must hold the picture itself"),
        ({"mask": "x!"}, "mask is not valid base64"),
        ({"denoising_strength": 1.5}, "denoising_strength must be a number from 0 to 1, not 1.5"),
        (
            {"inpainting_fill": 4, "mask": encoded(half_mask())},
            "inpainting_fill must be a whole number from 0 to 3",
        ),
        ({"latent_mask": "x"}, "latent_mask is not supported"),
        ({"resize_mode": 4}, "^resize_mode must be a whole number from 0 to 3, not 4"),
        ({"init_images": [encoded(RED_ON_WHITE)] * 17}, "init_images must have|batch_size must be"),
    ],
)
def test_a_wrong_body_is_refused_before_a_model_loads(
    memory: ModelMemory, tmp_path: Path, body: dict[str, Any], says: str
) -> None:
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"no checkpoint")
    with pytest.raises(RequestFault, match=says):
        image_to_image(memory, models={"Stable-diffusion": [broken]}, **body)


@pytest.mark.parametrize("fill", [0, 1, 2, 3])
def test_every_fill_mode_starts_from_what_it_says(fill: int) -> None:
    """Seen below the mask before anything is drawn: colours from around it, the picture, noise, nothing."""
    whole = RED_ON_WHITE
    asked = parse_image_to_image(
        {
            "init_images": [encoded(whole)],
            "mask": encoded(half_mask()),
            "mask_blur": 0,
            "inpaint_full_res": False,
            "inpainting_fill": fill,
        },
        1,
    )
    prepared = inpainting.prepare(asked, 64, 64)
    below = house.pixels(prepared.pictures[0])[:, 33:]
    if fill == 1:
        assert np.array_equal(below, house.pixels(whole)[:, 33:])
    if fill == 0:
        # The right half showed half of the red circle; what is spread into it comes from the left.
        assert not np.array_equal(below, house.pixels(whole)[:, 33:])
    assert prepared.mask is not None
    latents, noise = torch.full((1, 4, 8, 8), 3.0), torch.full((1, 4, 8, 8), 7.0)
    new = inpainting.latent_mask(prepared.mask, latents, True)
    clean = inpainting.filled(latents, noise, new, fill)
    assert clean[..., :4].unique().tolist() == [3.0]
    assert clean[..., 4:].unique().tolist() == [{2: 7.0, 3: 0.0}.get(fill, 3.0)]


def test_a_partly_covered_latent_is_rounded_or_mixed() -> None:
    mask = Image.new("L", (64, 64), 102)
    latents = torch.zeros(1, 4, 8, 8)
    assert inpainting.latent_mask(mask, latents, True).unique().tolist() == [0.0]
    assert inpainting.latent_mask(mask, latents, False).mean() == pytest.approx(0.4, abs=0.01)


class _Watched:
    """Keeps what an inpainting UNet is given."""

    def __init__(self, memory: ModelMemory, path: Path) -> None:
        work = context(memory.device, "img2img", {}, {"Stable-diffusion": [path]}, memory)
        self.unet = memory.checkpoint(work.job.models[0], work.open_file).pipeline.unet
        self.seen: list[torch.Tensor] = []
        self.unet.register_forward_pre_hook(lambda _unet, arguments: self.seen.append(arguments[0]))


def test_an_inpainting_checkpoint_sees_the_mask_and_the_masked_picture(
    memory: ModelMemory, tmp_path: Path
) -> None:
    pipeline = tiny.sd1_pipeline()
    pipeline.unet = tiny.unet(in_channels=9)
    path = tmp_path / "inpainting.safetensors"
    save_single_file(pipeline, path, dtype=torch.float16, metadata=tiny.METADATA)
    watched = _Watched(memory, path)
    models = {"Stable-diffusion": [path]}
    mask = encoded(half_mask())
    image_to_image(memory, models=models, mask=mask, mask_blur=0, inpaint_full_res=False, batch_size=2)
    sample = watched.seen[-1]
    assert sample.shape[1] == 9
    assert sample[0, 4, :, :4].max() == 0
    assert sample[0, 4, :, 4:].min() == 1
    watched.seen.clear()
    house.run(memory, "txt2img", models, prompt="a cat")
    assert watched.seen[-1][:, 4].min() == 1


def test_blending_keeps_latents_at_the_level_of_the_step() -> None:
    from gpu_worker.inpainting import keeping
    from gpu_worker.noise_level import NoiseLevel

    clean, noise = torch.ones(1, 4, 2, 2), torch.full((1, 4, 2, 2), 0.5)
    new = torch.tensor([[[[0.0, 1.0], [0.0, 1.0]]]])
    made = torch.full((1, 4, 2, 2), 9.0)
    blended = keeping(clean, noise, new)(Step(1, made, NoiseLevel(2.0, is_scaled=False), lambda: made))
    assert blended[..., 0].unique().tolist() == [2.0]
    assert blended[..., 1].unique().tolist() == [9.0]
