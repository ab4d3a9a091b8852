"""Tiling and faces: what the WebUI does round every way of making pictures."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gpu_worker.errors import RequestFault
from gpu_worker.pipelines import ModelMemory
from gpu_worker.tiling import circular
from tests.gpu_worker import graphs, house
from tests.gpu_worker.contexts import context

POINTS = [(30.0, 30.0), (34.0, 30.0), (32.0, 32.0), (31.0, 34.0), (33.0, 34.0)]


def seam(picture: Image.Image) -> float:
    """How much colours jump over the outer edges, beside how much they do inside."""
    array = house.pixels(picture)
    jumps = np.abs(array[:, 0] - array[:, -1]).mean() + np.abs(array[0] - array[-1]).mean()
    return float(jumps)


def test_convolutions_look_round_the_edge_only_inside_the_block() -> None:
    layer = torch.nn.Conv2d(1, 1, 3, padding=1, bias=False)
    layer.weight.data.fill_(1)
    spot = torch.zeros(1, 1, 5, 5)
    spot[0, 0, 2, 0] = 1
    with circular(True, torch.nn.Sequential(layer)):
        assert layer(spot)[0, 0, 2, 4] == 1
    assert layer(spot)[0, 0, 2, 4] == 0
    with circular(False, layer):
        assert layer(spot)[0, 0, 2, 4] == 0


def test_padding_is_put_back_when_a_job_fails() -> None:
    layer = torch.nn.Conv2d(1, 1, 3, padding=1)
    with pytest.raises(RuntimeError), circular(True, layer):
        raise RuntimeError
    assert layer.padding_mode == "zeros"


def test_a_tiled_picture_has_no_seam(memory: ModelMemory) -> None:
    # A random start far from the training: what makes seams is the padding, not the scene.
    body = {"prompt": "", "cfg_scale": 1, "steps": 4, "width": 96, "height": 96}
    plain, tiled = (
        house.run(memory, "txt2img", **body, tiling=is_tiled).pictures[0] for is_tiled in (False, True)
    )
    again = house.run(memory, "txt2img", **body, tiling=False).pictures[0]
    assert seam(tiled.image) < 0.8 * seam(plain.image)
    assert "Tiling: True" in tiled.infotext
    assert np.array_equal(house.pixels(plain.image), house.pixels(again.image))


def test_faces_are_restored_in_the_finished_picture(memory: ModelMemory, tmp_path: Path) -> None:
    models = {
        "FaceRestore": [
            graphs.inverter(tmp_path / "codeformer.onnx"),
            graphs.face_detector(tmp_path / "face_detection_yunet_2023mar.onnx", POINTS),
        ]
    }
    body = {"prompt": "a red circle on a white background", "restore_faces": True}
    made = house.run(memory, "txt2img", models, **body)
    plain = house.run(memory, "txt2img", prompt=body["prompt"]).pictures[0]
    middle = [house.pixels(picture.image)[32, 32] for picture in (made.pictures[0], plain)]
    assert np.abs(middle[0] + middle[1] - 255).max() <= 3
    assert "Face restoration: CodeFormer" in made.pictures[0].infotext
    assert made.info["restore_faces"] is True


def test_the_restorer_of_faces_and_its_weight_are_those_that_are_named(
    memory: ModelMemory, tmp_path: Path
) -> None:
    """GFPGAN makes opposites here, CodeFormer a grey that is the fainter the higher its weight."""
    models = {
        "FaceRestore": [
            graphs.inverter(tmp_path / "GFPGANv1.4.onnx"),
            graphs.codeformer(tmp_path / "codeformer.onnx"),
            graphs.face_detector(tmp_path / "face_detection_yunet_2023mar.onnx", POINTS),
        ]
    }
    body = {"prompt": "a red circle on a white background", "restore_faces": True}
    plain = house.pixels(house.run(memory, "txt2img", prompt=body["prompt"]).pictures[0].image)[32, 32]
    grey = 127.5
    for settings, share in (
        ({}, 0.5),
        ({"face_restoration_model": "CodeFormer", "code_former_weight": 0.0}, 0.0),
        ({"code_former_weight": 1.0}, 1.0),
        ({"face_restoration_model": "GFPGAN"}, -1.0),
    ):
        made = house.run(memory, "txt2img", models, **body, override_settings=settings).pictures[0]
        middle = house.pixels(made.image)[32, 32]
        assert np.abs(middle - (grey + share * (plain - grey))).max() <= 3
        assert f"Face restoration: {settings.get('face_restoration_model', 'CodeFormer')}" in made.infotext
    with pytest.raises(RequestFault, match="face_restoration_model 'Other' is not known; there are GFPGAN"):
        house.run(memory, "txt2img", models, **body, override_settings={"face_restoration_model": "Other"})


def test_without_their_models_the_sentence_names_the_files(memory: ModelMemory) -> None:
    with pytest.raises(RequestFault, match=r"restore_faces needs GFPGANv1\.4\.onnx and face_detection_yunet"):
        house.run(memory, "txt2img", restore_faces=True)
    with pytest.raises(RequestFault, match="tiling must be true or false"):
        context(memory.device, "txt2img", {})
        house.run(memory, "txt2img", tiling="yes")
