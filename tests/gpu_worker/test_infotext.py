"""The WebUI's infotext, written and read."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_worker import infotext, text_to_image
from gpu_worker.errors import RequestFault
from gpu_worker.infotext_request import request_from, with_infotext
from gpu_worker.parameters import parse_text_to_image
from gpu_worker.pipelines import ModelMemory
from tests.gpu_worker import house
from tests.gpu_worker.contexts import context

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
