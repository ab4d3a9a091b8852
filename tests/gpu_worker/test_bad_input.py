"""Whatever file or parameters a worker is given, it says what is wrong and serves the next job."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from tests.gpu_worker import tiny
from tests.gpu_worker.conftest import StartWorker
from tests.gpu_worker.platform import Platform

GOOD: dict[str, Any] = {"prompt": "a cat", "steps": 2, "width": 64, "height": 64, "seed": 5}


def bad_files(folder: Path, good: Path) -> dict[str, tuple[Path, str]]:
    """Bad checkpoints by name, each with a part of the sentence that is expected."""
    whole = good.read_bytes()
    truncated, early = folder / "truncated", folder / "early"
    truncated.write_bytes(whole[:-1000])
    early.write_bytes(whole[:200])
    (folder / "text").write_text("this is not a checkpoint, is it?")
    lora = {"lora_unet_a.lora_down.weight": torch.zeros(4, 4)}
    save_file(lora, folder / "lora")
    zero = {"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(0, 4, 3, 3)}
    lying = {"a": {"dtype": "F32", "shape": [10**9], "data_offsets": [0, 4 * 10**9]}}

    def nan(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.diffusion_model.out.2.bias"].fill_(float("nan"))

    return {
        "truncated": (truncated, "is truncated: the header promises"),
        "early": (early, "truncated or not a safetensors file"),
        "text": (folder / "text", "not a safetensors file"),
        "huge header": (tiny.with_header(folder / "huge", {}, length=2**63), "promise a header of"),
        "lying header": (tiny.with_header(folder / "lying", lying, b"1234"), "is truncated"),
        "lora": (folder / "lora", "looks like a LoRA"),
        "zero size": (
            tiny.rewrite(good, folder / "zero", lambda tensors: tensors.update(zero)),
            "has shape [0, 4, 3, 3]",
        ),
        "not numbers": (tiny.rewrite(good, folder / "nan", nan), "values that are not numbers"),
    }


def test_the_worker_survives_every_bad_checkpoint(
    platform: Platform, models: Path, tmp_path: Path, start_worker: StartWorker
) -> None:
    good = platform.put_file(models / "sd1.safetensors")
    with start_worker():
        for name, (path, sentence) in bad_files(tmp_path, models / "sd1.safetensors").items():
            platform.submit(name, [platform.put_file(path, "shapes.safetensors")], GOOD)
            action, body = platform.end_of(name)
            assert (action, body.get("kind")) == ("fail", "request"), name
            assert sentence in body["message"], name
            assert "shapes.safetensors" in body["message"], name
            platform.submit(f"after {name}", [good], GOOD)
            assert platform.end_of(f"after {name}")[0] == "complete"


def test_the_worker_survives_every_bad_request(
    platform: Platform, models: Path, start_worker: StartWorker
) -> None:
    good = platform.put_file(models / "sd1.safetensors")
    requests: dict[str, tuple[Any, str]] = {
        "wide": (GOOD | {"width": 1e9}, "width must be"),
        "many": (GOOD | {"batch_size": 10**6}, "batch_size must be"),
        "not json": (b"{", "not valid JSON"),
        "list": (b"[]", "must be a JSON object"),
        "deep": (b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}", "nested"),
        "large": (b'{"prompt":"' + b"a" * 40_000_000 + b'"}', "at most"),
        "sampler": (GOOD | {"sampler_name": "Nope"}, "this worker has"),
        "lcm": (GOOD | {"sampler_name": "LCM", "steps": 90}, "do not work together"),
        "lora": (GOOD | {"prompt": "a <lora:x:1>"}, "<lora:x> in the prompt"),
        "other model": (
            GOOD | {"override_settings": {"sd_model_checkpoint": "z"}},
            "sd_model_checkpoint 'z'",
        ),
        "clip": (GOOD | {"override_settings": {"CLIP_stop_at_last_layers": 5}}, "at most 2"),
        "no model": (GOOD, "names no checkpoint"),
    }
    with start_worker():
        for name, (parameters, sentence) in requests.items():
            platform.submit(name, [] if name == "no model" else [good], parameters)
            action, body = platform.end_of(name)
            assert (action, body.get("kind")) == ("fail", "request"), name
            assert sentence in body["message"], name
        platform.submit("gone", [good], GOOD)
        platform.submit("last", [good], GOOD)
        assert platform.end_of("last")[0] == "complete"


def test_odd_requests_are_served(platform: Platform, models: Path, start_worker: StartWorker) -> None:
    good = platform.put_file(models / "sd1.safetensors")
    automatic = {"type": "VAE", "name": "Automatic", "id": "VAE", "url": None}
    content = b'{"steps": 2, "width": 64, "height": 64, "s_tmax": Infinity, "odd": NaN, "prompt": ""}'
    with start_worker():
        platform.submit("odd", [good, automatic], content)
        assert platform.end_of("odd")[0] == "complete"
        platform.submit("long", [good], GOOD | {"prompt": "word " * 300})
        assert platform.end_of("long")[0] == "complete"
    parameters = json.loads(platform.objects["out/odd/odd_param.json"])["parameters"]
    assert parameters["s_tmax"] is None
    comments = json.loads(platform.objects["out/long/long_param.json"])["info"]["comments"]
    assert comments == []
