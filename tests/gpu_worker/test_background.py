"""rembg: the subject stays, the rest becomes transparent."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from gpu_worker import background
from gpu_worker.device import Device
from gpu_worker.errors import RequestFault
from tests.gpu_worker import graphs
from tests.gpu_worker.contexts import context, encoded


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return graphs.segmentation(tmp_path_factory.mktemp("segmentation") / "u2net.onnx")


@pytest.fixture(scope="module")
def disc() -> Image.Image:
    picture = Image.new("RGB", (90, 60), (10, 20, 10))
    ImageDraw.Draw(picture).ellipse((30, 15, 60, 45), fill=(250, 240, 230))
    return picture


def run(device: Device, disc: Image.Image, files: list[Path], **body: Any) -> Image.Image:
    parameters = {"input_image": encoded(disc), "model": "u2net"} | body
    result = background.run(context(device, "rembg", parameters, {"Segmentation": files}))
    return result.pictures[0].image


def test_the_subject_is_cut_out(device: Device, disc: Image.Image, network: Path) -> None:
    picture = run(device, disc, [network])
    assert (picture.mode, picture.size) == ("RGBA", disc.size)
    *colour, cover = picture.getpixel((45, 30))
    assert colour == [250, 240, 230]
    assert picture.getpixel((5, 5))[3] < 20 < 230 < cover


def test_the_mask_alone_can_be_had(device: Device, disc: Image.Image, network: Path) -> None:
    mask = run(device, disc, [network], return_mask=True)
    assert mask.mode == "L"
    assert mask.getpixel((5, 5)) < 20 < 230 < mask.getpixel((45, 30))


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"input_image": None}, "input_image must be a picture as base64"),
        ({"model": "isnet"}, "model 'isnet' is not among the job's models.Segmentation"),
        ({"alpha_matting": True}, "alpha_matting is not supported"),
    ],
)
def test_a_wrong_body_is_refused(
    device: Device, disc: Image.Image, network: Path, body: dict[str, Any], says: str
) -> None:
    with pytest.raises(RequestFault, match=says):
        run(device, disc, [network], **body)


def test_without_a_network_the_sentence_names_the_file(device: Device, disc: Image.Image) -> None:
    with pytest.raises(RequestFault, match=r"u2net\.onnx.* in models\.Segmentation"):
        run(device, disc, [])


def test_a_damaged_file_is_the_requests_fault(
    device: Device, disc: Image.Image, network: Path, tmp_path: Path
) -> None:
    (tmp_path / "u2net.onnx").write_bytes(network.read_bytes()[:40])
    with pytest.raises(RequestFault, match=r"u2net\.onnx is no ONNX file"):
        run(device, disc, [tmp_path / "u2net.onnx"])
    with pytest.raises(RequestFault, match="is no segmentation network"):
        run(device, disc, [graphs.tagger(tmp_path / "u2net.onnx")])
