"""Preprocessors: what each makes of a drawing."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gpu_worker import preprocessors
from gpu_worker.controlnet import find_controlnets
from gpu_worker.device import Device
from gpu_worker.errors import RequestFault
from gpu_worker.tasks import TaskContext
from tests.gpu_worker import graphs
from tests.gpu_worker.contexts import context, encoded


def square() -> Image.Image:
    picture = Image.new("RGB", (96, 96), (230, 230, 230))
    picture.paste((30, 30, 30), (24, 24, 72, 72))
    return picture


def work(device: Device, files: list[Path] | None = None, **unit: Any) -> TaskContext:
    entry = {"image": encoded(square()), "model": "m"} | unit
    models = {"ControlNet": [Path(__file__)], "Annotator": files or []}
    script = {"controlnet": {"args": [entry | {"model": Path(__file__).stem}]}}
    return context(device, "txt2img", {"alwayson_scripts": script}, models)


def drawn(device: Device, module: str, files: list[Path] | None = None, **unit: Any) -> Any:
    found = find_controlnets(work(device, files, module=module, **unit))
    assert found is not None
    return np.asarray(found._drawn(found.controls[0], (96, 96))[0].convert("L"), int)


@pytest.mark.parametrize("module", ["canny", "lineart_standard", "scribble_xdog", "softedge_sobel"])
def test_each_algorithm_finds_what_it_looks_for(device: Device, module: str) -> None:
    """White at the edges, black in the background."""
    found = drawn(device, module, pixel_perfect=True)
    assert found[22:28, 48].max() > 100
    assert found[6, 6] < 30


def test_tones_are_changed_as_their_names_say(device: Device) -> None:
    plain = np.asarray(square().convert("L"), int)
    assert np.array_equal(drawn(device, "none"), plain)
    assert np.abs(drawn(device, "invert", pixel_perfect=True) - (255 - plain)).max() <= 1
    assert set(np.unique(drawn(device, "threshold", pixel_perfect=True))) == {0, 255}
    assert np.abs(drawn(device, "blur_gaussian", pixel_perfect=True)[48, 20:28] - 130).min() < 40
    assert np.abs(drawn(device, "tile_resample", pixel_perfect=True, threshold_a=8) - plain).max() > 10
    assert drawn(device, "recolor_luminance", pixel_perfect=True)[48, 48] < 60


def test_thresholds_are_the_preprocessors(device: Device) -> None:
    assert drawn(device, "threshold", threshold_a=10, pixel_perfect=True).min() == 255
    own = drawn(device, "threshold", threshold_a=-1, pixel_perfect=True)
    assert np.array_equal(own, drawn(device, "threshold", pixel_perfect=True))


def test_the_map_is_drawn_at_the_resolution_that_is_asked_for(device: Device) -> None:
    """One pixel of an edge at 96 pixels is a thinner line when it was drawn larger."""
    fine = drawn(device, "canny", processor_res=384)
    perfect = drawn(device, "canny", pixel_perfect=True, processor_res=384)
    assert perfect.max() == 255
    assert 0 < fine.sum() < perfect.sum()


def test_a_network_draws_the_map(device: Device, tmp_path: Path) -> None:
    file = graphs.segmentation(tmp_path / "depth_midas.onnx", 48)
    found = drawn(device, "depth_midas", [file])
    assert found[6, 6] > 240
    assert found[48, 48] < 15


def test_a_missing_network_is_named(device: Device) -> None:
    sentence = (
        r"module 'depth_midas' needs its network: name an .onnx file \(depth_midas.onnx\) in models.Ann"
    )
    with pytest.raises(RequestFault, match=sentence):
        drawn(device, "depth_midas")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("Canny", "canny"),
        ("invert (from white bg & black line)", "invert"),
        ("tile", "tile_resample"),
        ("", "none"),
        ("None", "none"),
    ],
)
def test_names_are_read_as_the_extension_writes_them(name: str, meant: str) -> None:
    assert preprocessors.known("unit", name) == meant
