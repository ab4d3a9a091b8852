"""Extras: sizes, crops, two upscalers blended and faces, as the WebUI's own bodies ask for them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gpu_worker import extras
from gpu_worker.device import Device
from gpu_worker.errors import RequestFault
from gpu_worker.results import encode_png
from gpu_worker.tasks import TaskResult
from tests.gpu_worker import graphs
from tests.gpu_worker.contexts import Steps, context, encoded

POINTS = [(28.0, 28.0), (36.0, 28.0), (32.0, 32.0), (29.0, 36.0), (35.0, 36.0)]


@pytest.fixture(scope="module")
def source() -> Image.Image:
    picture = Image.new("RGB", (64, 48), (200, 40, 30))
    picture.paste((20, 40, 200), (16, 12, 48, 36))
    return picture


def single(device: Device, source: Image.Image, models: Any = None, **body: Any) -> TaskResult:
    parameters = {"image": encoded(source), "upscaler_1": "Lanczos"} | body
    return extras.run_single(context(device, "extra-single-image", parameters, models))


def test_the_defaults_of_the_webui_double_the_size(device: Device, source: Image.Image) -> None:
    result = single(device, source)
    assert result.pictures[0].image.size == (128, 96)
    note = result.pictures[0].texts["postprocessing"]
    assert note == "Postprocess upscale by: 2, Postprocess upscaler: Lanczos"
    assert result.info["html_info"] == f"<p>{note}</p>"


@pytest.mark.parametrize(
    ("crop", "size", "size_wanted"),
    [(True, (100, 100), (100, 100)), (False, (100, 100), (133, 100)), (True, (32, 32), (32, 32))],
)
def test_a_size_is_reached_and_cropped(
    device: Device, source: Image.Image, crop: bool, size: tuple[int, int], size_wanted: tuple[int, int]
) -> None:
    result = single(
        device,
        source,
        resize_mode=1,
        upscaling_resize_w=size[0],
        upscaling_resize_h=size[1],
        upscaling_crop=crop,
        upscaler_1="Nearest",
    )
    picture = result.pictures[0].image
    assert picture.size == size_wanted
    # The middle stays the middle, and nothing black is added at the edges.
    assert picture.getpixel((picture.width // 2, picture.height // 2)) == (20, 40, 200)
    assert picture.getpixel((picture.width // 2, 1)) == (200, 40, 30)


def test_two_upscalers_are_blended_by_the_visibility_of_the_second(
    device: Device, source: Image.Image
) -> None:
    checks = Image.fromarray((np.indices((16, 16)).sum(0) % 2 * 255).astype(np.uint8)).convert("RGB")
    alone = [
        np.asarray(single(device, checks, upscaler_1=name).pictures[0].image, int)
        for name in ("Nearest", "Lanczos")
    ]
    blended = single(
        device, checks, upscaler_1="Nearest", upscaler_2="Lanczos", extras_upscaler_2_visibility=0.25
    )
    wanted = alone[0] * 0.75 + alone[1] * 0.25
    assert np.abs(alone[0] - alone[1]).max() > 20
    assert np.abs(np.asarray(blended.pictures[0].image, int) - wanted).max() <= 1
    assert "Postprocess upscaler 2: Lanczos" in blended.pictures[0].texts["postprocessing"]


def test_a_batch_keeps_the_order_and_tells_its_progress(device: Device, source: Image.Image) -> None:
    images = [{"data": encoded(source.resize((8 * n, 8))), "name": f"{n}.png"} for n in (1, 2, 3)]
    work = context(device, "extra-batch-images", {"imageList": images, "upscaler_1": "Nearest"})
    result = extras.run_batch(work)
    assert [picture.image.size for picture in result.pictures] == [(16, 16), (32, 16), (48, 16)]
    assert result.info["names"] == ["1.png", "2.png", "3.png"]
    assert isinstance(work.progress, Steps)
    assert work.progress.announced == [(3, 1)]
    assert work.progress.steps == [(1, 0, 1), (1, 1, 1), (1, 2, 1)]


def test_a_batch_may_be_called_images(device: Device, source: Image.Image) -> None:
    body = {"images": [{"data": encoded(source), "name": "a.png"}, encoded(source)], "upscaler_1": "Nearest"}
    result = extras.run_batch(context(device, "extra-batch-images", body))
    assert [picture.image.size for picture in result.pictures] == [(128, 96), (128, 96)]
    assert result.info["names"] == ["a.png", ""]
    assert result.info["unsupported"] == []


def test_the_factor_and_the_upscaler_are_those_that_are_named(device: Device) -> None:
    checks = Image.fromarray((np.indices((16, 16)).sum(0) % 2 * 255).astype(np.uint8)).convert("RGB")
    made = {
        name: single(device, checks, upscaler_1=name, upscaling_resize=3) for name in ("Nearest", "Lanczos")
    }
    nearest, soft = (made[name].pictures[0].image for name in ("Nearest", "Lanczos"))
    assert nearest.size == soft.size == (48, 48)
    assert nearest.tobytes() == checks.resize((48, 48), Image.Resampling.NEAREST).tobytes()
    assert soft.tobytes() == checks.resize((48, 48), Image.Resampling.LANCZOS).tobytes()


def test_the_source_keeps_its_own_infotext(device: Device, source: Image.Image) -> None:
    import base64
    import io

    from gpu_worker.tasks import Picture

    content = encode_png(Picture(source, "a cat\nSteps: 3, Seed: 1, Size: 64x48"))
    result = single(device, source, image=base64.b64encode(content).decode())
    written = Image.open(io.BytesIO(encode_png(result.pictures[0])))
    assert written.text["parameters"].startswith("a cat")
    assert written.text["postprocessing"].startswith("Postprocess upscale by: 2")


@pytest.fixture(scope="module")
def face_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("faces")
    return [
        graphs.inverter(folder / "GFPGANv1.4.onnx"),
        graphs.face_detector(folder / "face_detection_yunet_2023mar.onnx", POINTS),
    ]


def test_a_face_is_restored_where_it_is_and_nowhere_else(device: Device, face_files: list[Path]) -> None:
    picture = Image.new("RGB", (256, 256), (250, 200, 30))
    result = single(
        device, picture, {"FaceRestore": face_files}, upscaler_1="None", gfpgan_visibility=1
    ).pictures[0]
    assert result.image.getpixel((128, 128)) == (5, 55, 225)
    for corner in ((0, 0), (255, 0), (0, 255), (255, 255), (128, 3)):
        assert result.image.getpixel(corner) == (250, 200, 30)
    assert result.texts["postprocessing"] == "GFPGAN visibility: 1"
    half = single(device, picture, {"FaceRestore": face_files}, upscaler_1="None", gfpgan_visibility=0.5)
    assert half.pictures[0].image.getpixel((128, 128)) == (127, 127, 127)


@pytest.mark.parametrize(
    ("visibility", "weight", "wanted"),
    [(1, 1, (250, 200, 30)), (1, 0, (128, 128, 128)), (1, 0.5, (189, 164, 79)), (0.5, 0, (189, 164, 79))],
)
def test_codeformer_shows_as_much_as_it_is_asked_and_keeps_as_much_as_its_weight(
    device: Device, tmp_path: Path, visibility: float, weight: float, wanted: tuple[int, int, int]
) -> None:
    picture = Image.new("RGB", (256, 256), (250, 200, 30))
    files = [
        graphs.codeformer(tmp_path / "codeformer.onnx"),
        graphs.face_detector(tmp_path / "face_detection_yunet_2023mar.onnx", POINTS),
    ]
    made = single(
        device,
        picture,
        {"FaceRestore": files},
        upscaler_1="None",
        codeformer_visibility=visibility,
        codeformer_weight=weight,
    ).pictures[0]
    shown = np.asarray(made.image, int)
    assert np.abs(shown[128, 128] - wanted).max() <= 1
    assert np.abs(shown[3, 3] - (250, 200, 30)).max() == 0
    note = f"CodeFormer visibility: {visibility}, CodeFormer weight: {weight}"
    assert made.texts["postprocessing"] == note


def test_upscaling_comes_first_only_when_asked(
    device: Device, face_files: list[Path], source: Image.Image
) -> None:
    notes = [
        single(device, source, {"FaceRestore": face_files}, gfpgan_visibility=1, upscale_first=first)
        .pictures[0]
        .texts["postprocessing"]
        for first in (False, True)
    ]
    assert notes[0].startswith("GFPGAN visibility")
    assert notes[1].endswith("GFPGAN visibility: 1")


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"image": "x"}, "image is not valid base64|image is no picture"),
        ({"upscaling_resize": 9}, "upscaling_resize must be a number from 1 to 8, not 9"),
        ({"resize_mode": 2}, "^resize_mode must be a whole number from 0 to 1, not 2"),
        ({"upscaler_1": "4x-UltraSharp"}, "upscaler_1 '4x-UltraSharp' is not known"),
        ({"upscaler_1": "None"}, "nothing would change"),
        ({"codeformer_visibility": 1}, "needs codeformer.onnx and face_detection_yunet_2023mar.onnx"),
        ({"upscaling_crop": "yes"}, "upscaling_crop must be true or false"),
        (
            {"resize_mode": 1, "upscaling_resize_w": 16_000, "upscaling_resize_h": 16_000},
            "enlarged picture would have",
        ),
    ],
)
def test_a_wrong_body_is_refused_with_a_sentence(
    device: Device, source: Image.Image, body: dict[str, Any], says: str
) -> None:
    with pytest.raises(RequestFault, match=says):
        single(device, source, **body)


def test_unknown_keys_are_reported(device: Device, source: Image.Image) -> None:
    assert single(device, source, mystery=7, show_extras_results=True).info["unsupported"] == ["mystery"]
