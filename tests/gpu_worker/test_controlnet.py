"""ControlNet units on the house checkpoint: the picture is where the edges are."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import ControlNetModel
from PIL import Image
from safetensors.torch import load_file, save_file

from gpu_worker.errors import RequestFault
from gpu_worker.pipelines import ModelMemory
from gpu_worker.single_file_export import _unet_key
from gpu_worker.tasks import TaskResult
from house import shapes
from house.controlnet import FILE, edges, overlap
from tests.gpu_worker import house, tiny
from tests.gpu_worker.contexts import encoded

SEVERAL = {"batch_size": 6, "steps": 10}
WORDS = "red on a white background"
PLACES = {"square": (25, 38, 18), "circle": (39, 26, 17), "triangle": (36, 36, 20)}


def drawing(shape: str) -> Image.Image:
    return Image.fromarray(shapes.paint(shapes.draw_mask(shape, *PLACES[shape]), "black", "yellow"))


def unit(shape: str = "square", **changes: Any) -> dict[str, Any]:
    values = {
        "image": encoded(drawing(shape)),
        "module": "canny",
        "model": FILE.stem,
        "pixel_perfect": True,
        "save_detected_map": False,
    }
    return values | changes


def controlled(memory: ModelMemory, *units: dict[str, Any], task: str = "txt2img", **body: Any) -> TaskResult:
    models = {"ControlNet": [FILE], **body.pop("models", {})}
    script = {"controlnet": {"args": list(units)}}
    return house.run(memory, task, models, **({"prompt": WORDS, "alwayson_scripts": script} | body))


def difference(one: TaskResult, other: TaskResult) -> float:
    pair = [house.pixels(made.pictures[0].image) for made in (one, other)]
    return float(np.abs(pair[0] - pair[1]).mean())


@pytest.fixture(scope="module")
def free(memory: ModelMemory) -> TaskResult:
    return house.run(memory, "txt2img", prompt=WORDS)


def overlaps(made: TaskResult, shape: str) -> list[float]:
    wanted = shapes.draw_mask(shape, *PLACES[shape])
    return [overlap(picture.image, wanted) for picture in made.pictures]


@pytest.mark.parametrize("shape", PLACES)
@pytest.mark.parametrize("words", ["red on a white background", "blue on a yellow background"])
def test_the_picture_follows_the_edge(memory: ModelMemory, words: str, shape: str) -> None:
    """Each of six seeds; the words leave the shape open, and without the unit it is anything."""
    assert min(overlaps(controlled(memory, unit(shape), prompt=words, **SEVERAL), shape)) > 0.7
    assert float(np.mean(overlaps(house.run(memory, "txt2img", prompt=words, **SEVERAL), shape))) < 0.5


def test_a_larger_weight_holds_the_picture_closer(memory: ModelMemory) -> None:
    """Against words that want another shape."""
    body = {"prompt": "a red star on a white background", **SEVERAL}
    held = [
        float(np.mean(overlaps(controlled(memory, unit(weight=weight), **body), "square")))
        for weight in (0, 0.5, 1)
    ]
    assert held[0] + 0.1 < held[1] < held[2] - 0.1


def test_infotexts_tell_of_units(memory: ModelMemory) -> None:
    text = controlled(memory, unit(), steps=1).info["infotexts"][0]
    assert 'ControlNet 0: "Module: canny, Model: edges-v1, Weight: 1, Resize Mode: Crop and Resize' in text


def test_each_picture_of_a_batch_is_held_as_it_would_be_alone(memory: ModelMemory) -> None:
    both = controlled(memory, unit("circle"), batch_size=2)
    alone = controlled(memory, unit("circle"), seed=8)
    assert np.abs(house.pixels(both.pictures[1].image) - house.pixels(alone.pictures[0].image)).max() <= 1


@pytest.mark.parametrize("task", ["txt2img", "img2img"])
def test_a_unit_that_is_off_changes_nothing(memory: ModelMemory, task: str) -> None:
    body = {"init_images": [encoded(drawing("circle"))]} if task == "img2img" else {}
    plain = house.run(memory, task, prompt=WORDS, **body)
    assert difference(controlled(memory, unit(enabled=False), task=task, **body), plain) == 0


def test_a_weight_of_nothing_changes_nothing(memory: ModelMemory, free: TaskResult) -> None:
    assert difference(controlled(memory, unit(weight=0)), free) == 0


def test_a_unit_acts_in_its_part_of_the_steps_alone(memory: ModelMemory, free: TaskResult) -> None:
    whole = controlled(memory, unit())
    parts = [controlled(memory, unit(**part)) for part in ({"guidance_end": 0.05}, {"guidance_start": 0.7})]
    for part in parts:
        assert difference(part, free) > 0
        assert difference(part, whole) > 0
    assert difference(controlled(memory, unit(guidance_start=0.99)), free) == 0


def test_modes_share_the_say_between_prompt_and_map(memory: ModelMemory, free: TaskResult) -> None:
    made = {mode: controlled(memory, unit(control_mode=mode)) for mode in (0, 1, 2)}
    assert difference(made[1], free) < difference(made[0], free)
    assert difference(made[2], made[1]) > 0
    named = controlled(memory, unit(control_mode="My prompt is more important"))
    assert difference(named, made[1]) == 0
    older = unit(guessmode=True)
    assert difference(controlled(memory, older), made[2]) == 0


def test_two_units_both_hold_the_picture(memory: ModelMemory) -> None:
    halves = [unit(weight=0.5), unit(weight=0.5)]
    whole = controlled(memory, unit())
    both = controlled(memory, *halves)
    assert difference(both, whole) < 1
    assert "ControlNet 1: " in both.info["infotexts"][0]


def test_older_names_of_fields_are_read(memory: ModelMemory) -> None:
    new = controlled(memory, unit())
    entry = unit()
    older = {"input_image": entry.pop("image"), "model": "edges-v1.safetensors [0123abcd]", "lowvram": True}
    assert difference(controlled(memory, entry | older), new) == 0
    nested = {"image": {"image": encoded(drawing("square")), "mask": encoded(Image.new("L", (64, 64)))}}
    assert difference(controlled(memory, unit() | nested | {"low_vram": True}), new) == 0


def test_img2img_is_held_to_its_own_picture(memory: ModelMemory) -> None:
    body = {"init_images": [encoded(drawing("triangle"))], "denoising_strength": 0.95, "task": "img2img"}
    entry = unit("triangle")
    named = controlled(memory, entry, **body)
    del entry["image"]
    assert difference(controlled(memory, entry, **body), named) == 0
    assert difference(named, controlled(memory, unit("triangle", weight=0), **body)) > 0


def test_a_masked_part_is_held_too(memory: ModelMemory) -> None:
    mask = Image.new("L", (64, 64), 0)
    mask.paste(255, (0, 0, 40, 64))
    body = {"init_images": [encoded(drawing("circle"))], "mask": encoded(mask), "inpaint_full_res": True}
    made = controlled(memory, unit(), task="img2img", mask_blur=0, **body)
    kept, before = house.pixels(made.pictures[0].image), house.pixels(drawing("circle"))
    assert np.array_equal(kept[:, 40:], before[:, 40:])
    inpainting = unit(module="inpaint_only")
    assert controlled(memory, inpainting, task="img2img", **body).pictures[0].image.size == (64, 64)


def test_hires_fix_is_held_in_the_passes_that_are_named(memory: ModelMemory) -> None:
    body = {"enable_hr": True, "hr_scale": 1.5, "denoising_strength": 0.8, "steps": 8}
    made = {option: controlled(memory, unit(hr_option=option), **body) for option in ("Both", "Low res only")}
    made["High res only"] = controlled(memory, unit(hr_option="High res only"), **body)
    assert made["Both"].pictures[0].image.size == (96, 96)
    assert difference(made["Both"], made["Low res only"]) > 0
    assert difference(made["Both"], made["High res only"]) > 0


def test_the_map_is_one_more_picture(memory: ModelMemory) -> None:
    entry = unit()
    del entry["save_detected_map"]
    made = controlled(memory, entry)
    assert len(made.pictures) == 2
    found = house.pixels(made.pictures[1].image)[..., 0] > 127
    assert np.array_equal(found, edges(np.asarray(drawing("square"))) > 127)
    assert len(controlled(memory, unit(module="none", save_detected_map=True)).pictures) == 1
    assert len(controlled(memory, unit(save_detected_map=False)).pictures) == 1


def detected(memory: ModelMemory, **changes: Any) -> np.ndarray[Any, Any]:
    """The map that a unit draws, ``(64, 64)``, white where there is an edge."""
    made = controlled(memory, unit(save_detected_map=True, **changes), steps=1)
    return house.pixels(made.pictures[1].image)[..., 0] > 127


def extent(found: np.ndarray[Any, Any]) -> tuple[int, int]:
    """Height and width of what was found."""
    rows, columns = np.flatnonzero(found.any(1)), np.flatnonzero(found.any(0))
    return int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1


@pytest.mark.parametrize(
    ("mode", "height", "width"), [(0, 40, 20), (1, 40, 40), (2, 20, 20), ("Just Resize", 40, 20)]
)
def test_a_wide_picture_is_fitted_as_the_mode_says(
    memory: ModelMemory, mode: int | str, height: int, width: int
) -> None:
    """A circle of 40 pixels in the middle of 128x64."""
    wide = Image.new("RGB", (128, 64), "yellow")
    circle = shapes.draw_mask("circle", 32, 32, 20)
    wide.paste("black", (32, 0), Image.fromarray(circle))
    seen = extent(detected(memory, image=encoded(wide), resize_mode=mode))
    assert np.abs(np.subtract(seen, (height, width))).max() <= 3


def test_the_preprocessors_numbers_reach_it(memory: ModelMemory) -> None:
    """A faint circle has edges for low thresholds alone; a coarser look finds others."""
    faint = {
        "image": encoded(Image.fromarray(shapes.draw_mask("circle", 32, 32, 20)).point(lambda v: v // 4))
    }
    assert detected(memory, **faint, threshold_a=20, threshold_b=60).any()
    assert not detected(memory, **faint, threshold_a=20, threshold_b=1000).any()
    assert not detected(memory, **faint, threshold_a=1000, threshold_b=1000).any()
    rough = detected(memory, pixel_perfect=False, processor_res=64)
    assert (rough != detected(memory, pixel_perfect=False, processor_res=512)).any()


def test_what_is_to_be_drawn_is_told_by_the_units_mask(memory: ModelMemory) -> None:
    half = Image.new("L", (64, 64))
    half.paste(255, (0, 0, 32, 64))
    masks = {"left": encoded(half), "right": encoded(half.transpose(Image.Transpose.FLIP_LEFT_RIGHT))}
    made = {side: controlled(memory, unit(module="inpaint_only", mask_image=masks[side])) for side in masks}
    assert difference(made["left"], made["right"]) > 0
    assert difference(controlled(memory, unit(module="inpaint_only", mask=masks["left"])), made["left"]) == 0


def original(path: Path) -> Path:
    """The house ControlNet in the layout of the first ones, with ``control_model.`` before each name."""
    tensors = {}
    for key, tensor in load_file(FILE).items():
        if match := re.fullmatch(r"controlnet_down_blocks\.(\d+)\.(.+)", key):
            name = f"zero_convs.{match[1]}.0.{match[2]}"
        elif match := re.fullmatch(r"controlnet_mid_block\.(.+)", key):
            name = f"middle_block_out.0.{match[1]}"
        elif match := re.fullmatch(r"controlnet_cond_embedding\.blocks\.(\d+)\.(.+)", key):
            name = f"input_hint_block.{2 * int(match[1]) + 2}.{match[2]}"
        elif key.startswith("controlnet_cond_embedding."):
            place = "0" if "conv_in" in key else "14"
            name = f"input_hint_block.{place}.{key.rpartition('.')[2]}"
        else:
            name = _unet_key(key, 1, 2, set())
        tensors[f"control_model.{name}"] = tensor
    save_file(tensors, path)
    return path


def test_the_original_layout_is_the_same_network(memory: ModelMemory, tmp_path: Path) -> None:
    file = original(tmp_path / "control_old.safetensors")
    made = controlled(memory, unit(model="control_old"), models={"ControlNet": [file]})
    assert difference(made, controlled(memory, unit())) == 0


def test_sdxl_has_controlnets_too(models: Path, memory: ModelMemory, tmp_path: Path) -> None:
    torch.manual_seed(3)
    network = ControlNetModel.from_unet(
        tiny.xl_pipeline().unet, conditioning_embedding_out_channels=(8, 8, 16, 16)
    )
    for layer in [*network.controlnet_down_blocks, network.controlnet_mid_block]:
        torch.nn.init.normal_(layer.weight, std=0.5)
    save_file(dict(network.state_dict()), tmp_path / "xl_edges.safetensors")
    files = {
        "Stable-diffusion": [models / "xl.safetensors"],
        "ControlNet": [tmp_path / "xl_edges.safetensors"],
    }
    held = controlled(memory, unit(model="xl_edges"), models=files, steps=2)
    assert difference(held, controlled(memory, unit(model="xl_edges", weight=0), models=files, steps=2)) > 0
    with pytest.raises(RequestFault, match=r"xl_edges\.safetensors does not fit checkpoint shapes-v1"):
        controlled(memory, unit(model="xl_edges"), models={"ControlNet": [tmp_path / "xl_edges.safetensors"]})


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"model": "other"}, "model 'other' is not among the job's models.ControlNet .edges-v1.safetensors"),
        ({"model": None}, "controlnet unit 0 names no model"),
        ({"image": None}, "controlnet unit 0 has no image"),
        ({"image": "http://example.org/a.png"}, "must hold the picture itself"),
        ({"module": "openpose_full"}, "'openpose_full' is not done here"),
        ({"module": "reference_only"}, "'reference_only' is not done here"),
        ({"module": "nothing"}, "'nothing' is not known; this worker has none, canny"),
        ({"control_mode": "Sometimes"}, "control_mode must be 0, 1, 2 or one of Balanced"),
        ({"resize_mode": 7}, "resize_mode must be 0, 1, 2"),
        ({"weight": 3}, "weight must be a number from 0 to 2"),
        ({"guidance_end": "late"}, "guidance_end must be a number from 0 to 1"),
        ({"effective_region_mask": "x"}, "effective_region_mask is not supported"),
        ({"ipadapter_input": ["x"]}, "ipadapter_input is not supported"),
        ({"advanced_weighting": [1.0]}, "advanced_weighting is not supported"),
    ],
)
def test_a_wrong_unit_fails_with_a_sentence(
    memory: ModelMemory, changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(RequestFault, match=sentence):
        controlled(memory, unit(**changes))


def test_a_file_that_is_no_controlnet_says_what_it_is(memory: ModelMemory, tmp_path: Path) -> None:
    save_file({"adapter.body.0.weight": torch.zeros(1)}, tmp_path / "t2i.safetensors")
    with pytest.raises(RequestFault, match="is no ControlNet: it looks like a T2I-Adapter"):
        controlled(memory, unit(model="t2i"), models={"ControlNet": [tmp_path / "t2i.safetensors"]})
    tensors = load_file(FILE)
    del tensors["controlnet_mid_block.weight"]
    save_file(tensors, tmp_path / "half.safetensors")
    with pytest.raises(RequestFault, match=r"half\.safetensors does not fit .*controlnet_mid_block\.weight"):
        controlled(memory, unit(model="half"), models={"ControlNet": [tmp_path / "half.safetensors"]})
