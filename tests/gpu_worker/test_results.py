"""Results: PNGs with infotext, parameter files that any JSON reader reads, uploads that try again."""

import io
import json
import math

import pytest
from PIL import Image

from gpu_worker.client import make_session
from gpu_worker.errors import Passing
from gpu_worker.jobs import Job
from gpu_worker.results import Uploader, encode_parameters, encode_png, parameter_name, summary
from gpu_worker.tasks import Picture, TaskResult
from tests.gpu_worker.platform import Platform

JOB = Job("j", 1, 5, "e", "txt2img", "", "", 1, ())
INFO = {"prompt": "p", "infotexts": ["t"], "seed": 3, "cfg_scale": math.inf}


@pytest.mark.parametrize("infotext", ["a cat\nSteps: 1", "кот, 猫, é"])
def test_a_picture_carries_its_infotext(infotext: str) -> None:
    content = encode_png(Picture(Image.new("RGB", (8, 8)), infotext))
    assert Image.open(io.BytesIO(content)).text["parameters"] == infotext


def test_numbers_that_are_not_finite_become_null() -> None:
    content = encode_parameters({"s_tmax": math.inf, "deep": [{"x": math.nan}]}, TaskResult([], INFO))
    document = json.loads(content)
    assert document["parameters"] == {"s_tmax": None, "deep": [{"x": None}]}
    assert document["info"]["cfg_scale"] is None


def test_the_jobs_record_keeps_no_texts() -> None:
    assert summary(INFO) == {"seed": 3, "cfg_scale": None}


def test_a_refused_upload_is_tried_with_a_fresh_url(platform: Platform) -> None:
    asked: list[list[str]] = []

    def ask(names: list[str]) -> dict[str, str]:
        asked.append(names)
        return {name: f"{platform.url}/s3/{name}" for name in names}

    platform.broken["PUT"] = 1
    name = parameter_name(JOB)
    Uploader(make_session()).upload({name: b"{}"}, ask([name]), ask)
    assert platform.objects[name] == b"{}"
    assert asked == [[name], [name]]


def test_a_storage_that_takes_nothing_is_passing(platform: Platform) -> None:
    platform.broken["PUT"] = 100
    uploader = Uploader(make_session())
    with pytest.raises(Passing, match="could not be stored"):
        uploader.upload({"image_0.png": b"x"}, {}, lambda names: {n: f"{platform.url}/s3/{n}" for n in names})
