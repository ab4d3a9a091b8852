"""The axes of the X/Y/Z plot."""

from typing import Any

import pytest

from gpu_worker.errors import RequestFault
from gpu_worker.xyz_axes import Axis, read_axis


def axis(kind: Any, text: Any, chosen: Any = None, task: str = "txt2img", **changes: bool) -> Axis:
    return read_axis("X", kind, text, chosen, task, **({"from_text": False, "keeps_random": False} | changes))


@pytest.mark.parametrize(
    ("kind", "text", "body", "changed"),
    [
        ("Seed", "5", {}, {"seed": 5}),
        ("cfg scale", "2.5", {}, {"cfg_scale": 2.5}),
        ("Prompt S/R", "blue, red", {"prompt": "a red dot"}, None),
        ("Sampler", "Euler a", {}, {"sampler_name": "Euler a"}),
        ("Schedule type", "Karras", {}, {"scheduler": "Karras"}),
        ("Size", "512x768", {}, {"width": 512, "height": 768}),
        ("Styles", '"one,two"', {"styles": ["zero"]}, {"styles": ["zero", "one", "two"]}),
        ("Face restore", "false", {}, {"restore_faces": False}),
        ("Checkpoint name", "m", {}, {"override_settings": {"sd_model_checkpoint": "m"}}),
        (
            "VAE",
            "v",
            {"override_settings": {"CLIP_stop_at_last_layers": 2}},
            {"override_settings": {"CLIP_stop_at_last_layers": 2, "sd_vae": "v"}},
        ),
        ("Refiner switch at", "0.5", {}, {"refiner_switch_at": 0.5}),
        ("Eta", "1", {}, {"eta": 1.0}),
    ],
)
def test_each_type_changes_its_field(kind: str, text: str, body: Any, changed: Any) -> None:
    made = axis(kind, text)
    if changed is None:
        with pytest.raises(RequestFault, match="Prompt S/R: 'blue' is in neither prompt nor negative_prompt"):
            made.apply(body, made.values[0])
        return
    assert made.apply(body, made.values[0]) == body | changed


def test_search_and_replace_looks_for_the_first_value_in_both_prompts() -> None:
    made = axis("Prompt S/R", 'red, "blue, dark"')
    body = {"prompt": "a red dot", "negative_prompt": "red"}
    assert made.apply(body, made.values[1]) == {"prompt": "a blue, dark dot", "negative_prompt": "blue, dark"}


def test_words_change_places_and_what_is_between_them_stays() -> None:
    made = axis("Prompt order", "red, star")
    assert made.apply({"prompt": "a red big star!"}, ("star", "red"))["prompt"] == "a star big red!"


def test_types_are_numbered_as_the_webui_numbers_them_for_each_task() -> None:
    assert axis(0, "").name == "Nothing"
    assert axis(4, "5").name == "Steps"
    assert axis(6, "5").name == "CFG Scale"
    assert axis(8, "a, b", task="img2img").name == "Prompt order"


def test_chosen_values_count_unless_the_text_is_meant() -> None:
    assert axis("Sampler", "Heun", ["Euler", "LMS"]).values == ("Euler", "LMS")
    assert axis("Sampler", "Heun", ["Euler", "LMS"], from_text=True).values == ("Heun",)
    assert axis("Sampler", "Heun", []).values == ("Heun",)


def test_random_seeds_are_drawn_once_unless_they_are_to_be_kept() -> None:
    assert axis("Seed", "-1").values[0] >= 0
    assert axis("Seed", "-1", keeps_random=True).values == (-1,)


def test_an_unknown_type_is_refused_with_those_there_are() -> None:
    with pytest.raises(RequestFault, match="X type 'Colour' is not known; there are Nothing, Seed"):
        axis("Colour", "1")
    with pytest.raises(RequestFault, match="X type 'Token merging ratio' is not done by this worker"):
        axis("Token merging ratio", "0.5")
    with pytest.raises(RequestFault, match="X type 'Hires steps' is not known"):
        axis("Hires steps", "5", task="img2img")
    with pytest.raises(RequestFault, match="X values of Steps must be 1 to 64 values, not 0"):
        axis("Steps", " , ")
