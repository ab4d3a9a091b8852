"""The refiner: a second checkpoint goes on with the latents of the first."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpu_worker.device import Device
from gpu_worker.errors import RequestFault
from gpu_worker.pipelines import ModelMemory
from gpu_worker.tasks import TaskResult
from house.architecture import METADATA
from tests.gpu_worker import house, tiny
from tests.gpu_worker.contexts import encoded

WORDS = "a red circle on a white background"


@pytest.fixture(scope="module")
def refiners(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The house checkpoint under another name, and one whose UNet foresees less noise."""
    folder = tmp_path_factory.mktemp("refiners")
    shutil.copy(house.CHECKPOINT, folder / "same.safetensors")

    def weaken(tensors: dict[str, Any]) -> None:
        tensors["model.diffusion_model.out.2.weight"] *= 0.8

    tiny.rewrite(house.CHECKPOINT, folder / "weak.safetensors", weaken, METADATA)
    return {name: folder / f"{name}.safetensors" for name in ("same", "weak")}


def made(memory: ModelMemory, file: Path, **body: Any) -> TaskResult:
    models = {"Stable-diffusion": [house.CHECKPOINT, file]}
    return house.run(memory, "txt2img", models, **({"prompt": WORDS, "refiner_checkpoint": file.stem} | body))


def difference(one: TaskResult, other: TaskResult) -> float:
    pair = [house.pixels(result.pictures[0].image) for result in (one, other)]
    return float(np.abs(pair[0] - pair[1]).mean())


def test_the_same_model_goes_on_as_if_nothing_had_happened(
    memory: ModelMemory, refiners: dict[str, Path]
) -> None:
    plain = house.run(memory, "txt2img", prompt=WORDS)
    refined = made(memory, refiners["same"], refiner_switch_at=0.5)
    assert difference(refined, plain) == 0
    assert "Refiner: same, Refiner switch at: 0.5" in refined.info["infotexts"][0]


def test_another_model_changes_more_the_earlier_it_takes_over(
    memory: ModelMemory, refiners: dict[str, Path]
) -> None:
    plain = house.run(memory, "txt2img", prompt=WORDS)
    late = made(memory, refiners["weak"], refiner_switch_at=0.9)
    early = made(memory, refiners["weak"], refiner_switch_at=0.3)
    assert 0 < difference(late, plain) < difference(early, plain)
    assert difference(made(memory, refiners["weak"], refiner_switch_at=1.0), plain) == 0


def test_neither_model_leaves_the_device_while_both_are_used(
    device: Device, refiners: dict[str, Path]
) -> None:
    """A memory that has room for one of them would move the first while its pictures are not decoded yet."""
    small = ModelMemory(device, 1)
    refined = made(small, refiners["same"], refiner_switch_at=0.5)
    assert house.read(refined.pictures[0].image).shape == "circle"
    assert [len(small._entries), len(small._resting)] == [2, 0]


def test_with_hires_fix_it_refines_the_second_pass(memory: ModelMemory, refiners: dict[str, Path]) -> None:
    body = {"enable_hr": True, "hr_scale": 1.5, "denoising_strength": 0.7, "steps": 6}
    plain = house.run(memory, "txt2img", prompt=WORDS, **body)
    refined = made(memory, refiners["weak"], refiner_switch_at=0.5, **body)
    assert refined.pictures[0].image.size == (96, 96)
    assert difference(refined, plain) > 0


def test_img2img_is_refined_too(memory: ModelMemory, refiners: dict[str, Path]) -> None:
    source = house.run(memory, "txt2img", prompt=WORDS).pictures[0].image
    models = {"Stable-diffusion": [house.CHECKPOINT, refiners["weak"]]}
    body = {"prompt": WORDS, "init_images": [encoded(source)], "denoising_strength": 0.6}
    plain = house.run(memory, "img2img", models, **body)
    refined = house.run(memory, "img2img", models, refiner_checkpoint="weak", refiner_switch_at=0.6, **body)
    assert difference(refined, plain) > 0


def test_sdxls_refiner_refines_and_does_nothing_else(
    memory: ModelMemory, models: Path, tmp_path: Path
) -> None:
    file = tiny.write_refiner(tmp_path / "refiner.safetensors")
    files = {"Stable-diffusion": [models / "xl.safetensors", file]}
    body = {"prompt": "a", "steps": 4}
    plain = house.run(memory, "txt2img", files, **body)
    refined = house.run(memory, "txt2img", files, refiner_checkpoint="refiner.safetensors [0123]", **body)
    assert difference(refined, plain) > 0
    with pytest.raises(RequestFault, match="is an SDXL refiner, which cannot make pictures from text alone"):
        house.run(memory, "txt2img", {"Stable-diffusion": [file]}, **body)
    with pytest.raises(RequestFault, match=r"cannot go on with what shapes-v1.* begins"):
        made(memory, file)


def test_an_unknown_refiner_is_refused_with_those_there_are(memory: ModelMemory) -> None:
    with pytest.raises(
        RequestFault, match=r"'other' is not among the job's models.Stable-diffusion .shapes-v"
    ):
        house.run(memory, "txt2img", refiner_checkpoint="other", prompt=WORDS)
