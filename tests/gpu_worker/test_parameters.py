"""Parameter files, absurd ones above all."""

import json
from typing import Any

import pytest

from gpu_worker.errors import RequestFault
from gpu_worker.parameters import TextToImage, parse_document, parse_text_to_image


def parsed(**body: Any) -> TextToImage:
    return parse_text_to_image(parse_document(json.dumps(body).encode()), drawn_seed=99)


def test_defaults_are_the_webuis() -> None:
    request = parsed()
    assert (request.steps, request.cfg_scale, request.width, request.height) == (20, 7.0, 512, 512)
    assert request.sampling.sampler == "Euler"


def test_a_seed_of_minus_one_is_the_jobs_drawn_seed_and_counts_up() -> None:
    request = parsed(seed=-1, batch_size=2, n_iter=2)
    assert request.seeds == [99, 100, 101, 102]


def test_sizes_are_rounded_down_to_multiples_of_eight() -> None:
    request = parsed(width=70, height="519")
    assert (request.width, request.height) == (64, 512)


def test_infinity_is_read() -> None:
    document = parse_document(b'{"s_tmax": Infinity, "steps": 4}')
    assert parse_text_to_image(document, 1).steps == 4


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"width": 1e9}, "width must be a whole number from 64 to 2048, not 1000000000.0"),
        ({"batch_size": 10**6}, "batch_size must be a whole number from 1 to 16, not 1000000"),
        ({"height": 10**300}, "height .* not a number of more than 38 digits"),
        ({"steps": 0}, "steps must be .* from 1 to 150, not 0"),
        ({"steps": 20.5}, "steps must be a whole number"),
        ({"steps": float("nan")}, "steps .* not nan"),
        ({"cfg_scale": float("inf")}, "cfg_scale .* not inf"),
        ({"cfg_scale": "high"}, "cfg_scale must be a number from 1 to 100, not 'high'"),
        ({"seed": -2}, "seed must be"),
        ({"seed": True}, "seed .* not true"),
        ({"seed": [1] * 1000}, "seed .* not a list of 1000"),
        ({"batch_size": 16, "n_iter": 5}, "at most 64 images, not 16 x 5"),
        ({"prompt": ["a"]}, "prompt must be text, not a list of 1"),
        ({"prompt": "a" * 30_000}, "prompt must have at most 20000 characters, it has 30000"),
        ({"sampler_name": {"a": 1}}, "sampler_name must be text, not an object of 1 fields"),
        ({"override_settings": []}, None),
        ({"override_settings": [1]}, "override_settings must be an object"),
        ({"override_settings": {"CLIP_stop_at_last_layers": 99}}, "CLIP_stop_at_last_layers must be"),
        ({"alwayson_scripts": "x"}, "alwayson_scripts must be an object"),
    ],
)
def test_a_value_out_of_limits_is_named(body: dict[str, Any], sentence: str | None) -> None:
    if sentence is None:
        parsed(**body)
        return
    with pytest.raises(RequestFault, match=sentence):
        parsed(**body)


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ({"alwayson_scripts": {"other": {"args": [True]}}}, "alwayson_scripts.other"),
    ],
)
def test_a_wish_that_would_change_the_picture_fails_the_job(body: dict[str, Any], name: str) -> None:
    with pytest.raises(RequestFault, match=f"{name} is not supported"):
        parsed(**body)


@pytest.mark.parametrize("name", ["init_images", "mask"])
def test_pictures_to_start_from_are_for_img2img(name: str) -> None:
    with pytest.raises(RequestFault, match=f"{name} is for the task_type img2img"):
        parsed(**{name: ["x"]})


def test_what_has_no_effect_is_reported() -> None:
    request = parsed(
        enable_hr=False,
        subseed=3,
        hr_scale=2.0,
        made_up_key="x",
        override_settings={"hide_samplers": True},
        alwayson_scripts={"controlnet": {"args": [{"enabled": False}]}},
    )
    assert "made_up_key" in request.unsupported
    assert "override_settings.hide_samplers" in request.unsupported
    assert "enable_hr" not in request.unsupported
    assert request.subseed == 3


def test_switches_of_the_webuis_interface_are_known_and_change_nothing() -> None:
    switches: dict[str, Any] = {
        **dict.fromkeys(("send_images", "save_images", "do_not_save_samples", "do_not_save_grid"), True),
        "comments": {"a": "b"},
        "force_task_id": "task",
        "override_settings_restore_afterwards": True,
    }
    assert parsed(**switches, subseed=1) == parsed(subseed=1)
    document = {"include_init_images": True, "subseed": 1}
    assert parse_text_to_image(document, 99, "img2img") == parse_text_to_image({"subseed": 1}, 99, "img2img")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "not valid JSON"),
        (b"\xff\xfe\x00", "not valid JSON"),
        (b"[1]", "must be a JSON object, not a list of 1"),
        (b"null", "must be a JSON object"),
        (b'{"steps": ' + b"1" * 10_000 + b"}", "not valid JSON"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested more than 32 deep"),
        (b'{"a": ' + b"[" * 40 + b"]" * 40 + b"}", "nested more than 32 deep"),
        (b'{"prompt": "' + b"a" * 50_000_000 + b'"}', "at most 33554432 bytes"),
    ],
)
def test_a_file_that_is_no_request_says_why(content: bytes, sentence: str) -> None:
    with pytest.raises(RequestFault, match=sentence):
        parse_document(content)
