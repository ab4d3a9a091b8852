"""The filter for unsafe pictures, with a classifier that takes what is reddish for unsafe."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper
from PIL import Image

from gpu_worker.config import ConfigError, ServeConfig
from gpu_worker.errors import RequestFault
from gpu_worker.pipelines import ModelMemory
from gpu_worker.safety import SafetyFilter, load_filter
from gpu_worker.tasks import TaskResult, find_task
from tests.gpu_worker import graphs, house
from tests.gpu_worker.contexts import context, encoded

RED = "a red circle on a white background"
BLUE = "a blue circle on a white background"


def redness(path: Path, weights: Any = ((-30, 30), (30, -30), (0, 0))) -> Path:
    """Safe and unsafe, by how much more red than green there is."""
    nodes = [
        helper.make_node("ReduceMean", ["input"], ["mean"], axes=[2, 3], keepdims=0),
        helper.make_node("MatMul", ["mean", "weights"], ["output"]),
    ]
    constants = {"weights": np.array(weights, np.float32)}
    outputs = {"output": [1, len(weights[0])]}
    return graphs.write(path, nodes, {"input": [1, 3, 32, 32]}, outputs, constants)


def safety(path: Path, policy: str, **environment: str) -> SafetyFilter | None:
    values = {"WORKER_NSFW": policy, "WORKER_NSFW_MODEL": str(path)} | environment
    return load_filter(ServeConfig.from_env(values))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return redness(tmp_path_factory.mktemp("filter") / "nsfw.onnx")


def run(memory: ModelMemory, found: SafetyFilter | None, task: str = "txt2img", **body: Any) -> TaskResult:
    files = {"Stable-diffusion": [house.CHECKPOINT]}
    work = context(memory.device, task, house.SMALL | body, files, memory)
    return find_task(task, house.TASKS)(replace(work, safety=found))


def test_a_picture_that_is_not_safe_is_blackened_and_others_are_left_alone(
    memory: ModelMemory, file: Path
) -> None:
    found = safety(file, "black")
    red, blue = (run(memory, found, prompt=words) for words in (RED, BLUE))
    assert house.pixels(red.pictures[0].image).max() == 0
    assert red.info["nsfw_content_detected"] == [True]
    assert blue.info["nsfw_content_detected"] == [False]
    plain = run(memory, None, prompt=BLUE)
    assert np.array_equal(house.pixels(blue.pictures[0].image), house.pixels(plain.pictures[0].image))


def test_a_blurred_picture_shows_no_shape(memory: ModelMemory, file: Path) -> None:
    plain = house.pixels(run(memory, None, prompt=RED).pictures[0].image)
    blurred = house.pixels(run(memory, safety(file, "blur"), prompt=RED).pictures[0].image)
    steepest = [int(np.abs(np.diff(pixels[..., 1], axis=1)).max()) for pixels in (plain, blurred)]
    assert steepest[1] * 4 < steepest[0]


def test_a_job_fails_where_the_policy_says_so(memory: ModelMemory, file: Path) -> None:
    found = safety(file, "fail")
    with pytest.raises(RequestFault, match="the picture is held back"):
        run(memory, found, prompt=RED)
    assert run(memory, found, prompt=BLUE).pictures[0].image.size == (64, 64)


def test_pictures_of_other_tasks_and_of_grids_pass_the_filter_too(memory: ModelMemory, file: Path) -> None:
    found = safety(file, "black")
    red = Image.new("RGB", (32, 32), (220, 30, 30))
    enlarged = run(memory, found, "extra-single-image", image=encoded(red), upscaler_1="Lanczos")
    assert house.pixels(enlarged.pictures[0].image).max() == 0
    axes = ["Prompt S/R", "red, blue", [], "Nothing", "", [], "Nothing", "", []]
    plotted = run(memory, found, prompt=RED, script_name="X/Y/Z plot", script_args=[*axes, False])
    grid = house.pixels(plotted.pictures[0].image)
    assert grid[:, :64].max() == 0
    assert grid[:, 64:].max() > 0


@pytest.mark.parametrize(
    ("weights", "unsafe"),
    [
        (((30,), (-30,), (0,)), True),
        (((-30, 30), (30, -30), (0, 0)), True),
        (((0, 0, 30, 0, 0), (0, 0, 0, 0, 0), (0, 0, 0, 0, 0)), False),
        (((0, 0, 0, 30, 0), (0, 0, 0, 0, 0), (0, 0, 0, 0, 0)), True),
    ],
)
def test_classifiers_of_one_two_and_five_classes_are_understood(
    tmp_path: Path, weights: Any, unsafe: bool
) -> None:
    found = safety(redness(tmp_path / "m.onnx", weights), "black")
    assert found is not None
    assert (found.score(Image.new("RGB", (40, 40), (250, 0, 0))) > 0.5) is unsafe


def test_a_filter_that_cannot_work_keeps_the_worker_from_starting(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="WORKER_NSFW is blur, and WORKER_NSFW_MODEL names no file"):
        ServeConfig.from_env({"WORKER_NSFW": "blur"})
    with pytest.raises(ConfigError, match="WORKER_NSFW_MODEL names no file"):
        safety(tmp_path / "gone.onnx", "fail")
    (tmp_path / "broken.onnx").write_bytes(b"x")
    with pytest.raises(ConfigError, match=r"WORKER_NSFW_MODEL cannot be used: broken\.onnx is no ONNX file"):
        safety(tmp_path / "broken.onnx", "fail")
    with pytest.raises(ConfigError, match="gives 3 numbers"):
        safety(redness(tmp_path / "three.onnx", np.eye(3)), "black")
    with pytest.raises(ConfigError, match="WORKER_NSFW must be"):
        ServeConfig.from_env({"WORKER_NSFW": "sometimes"})


def test_without_the_setting_there_is_no_filter() -> None:
    assert load_filter(ServeConfig.from_env({})) is None
