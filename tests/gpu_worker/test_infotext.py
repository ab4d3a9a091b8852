"""The WebUI's infotext, written and read."""

from hypothesis import given
from hypothesis import strategies as st

from gpu_worker import infotext
from gpu_worker.parameters import parse_text_to_image

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
    body = infotext.request_from(infotext.write("a cat,\nsleeping", "a dog", FIELDS))
    request = parse_text_to_image(body, drawn_seed=0)
    assert (request.prompt, request.negative_prompt) == ("a cat,\nsleeping", "a dog")
    assert (request.steps, request.seed, request.width, request.height) == (20, 5, 64, 128)
    assert (request.sampling.sampler, request.sampling.schedule) == ("DPM++ 2M", "Karras")
    assert (request.cfg_scale, request.clip_skip) == (7.5, 2)
    assert request.checkpoint == "shapes, v1: best"


prompts = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=60).map(str.strip)


@given(prompt=prompts, negative=prompts, model=prompts.filter(bool))
def test_what_is_written_is_read_back(prompt: str, negative: str, model: str) -> None:
    fields = infotext.parse(infotext.write(prompt, negative, FIELDS | {"Model": model}))
    if not prompt.startswith(infotext.NEGATIVE_MARK):
        assert fields["Prompt"] == prompt
        assert fields["Negative prompt"] == negative
    assert fields["Model"] == model
    assert fields["Seed"] == "5"
