"""The X/Y/Z plot on the house checkpoint."""

from typing import Any

import numpy as np
import pytest

from gpu_worker.errors import RequestFault
from gpu_worker.infotext import parse
from gpu_worker.pipelines import ModelMemory
from gpu_worker.tasks import TaskResult, find_task
from gpu_worker.xyz_plot import Plot, parse_plot
from tests.gpu_worker import house
from tests.gpu_worker.contexts import Steps, context

NOTHING = ["Nothing", "", []]
WORDS = "a red circle on a white background"


def plotted(memory: ModelMemory, *axes: list[Any], flags: Any = (), **body: Any) -> TaskResult:
    arguments = [value for axis in [*axes, NOTHING, NOTHING, NOTHING][:3] for value in axis] + list(flags)
    plot = {"script_name": "x/y/z plot", "script_args": arguments}
    return house.run(memory, "txt2img", **({"prompt": WORDS, "steps": 4} | plot | body))


def test_the_grid_comes_first_and_shows_the_cells(memory: ModelMemory) -> None:
    made = plotted(
        memory,
        ["Prompt S/R", "red, blue", []],
        ["Steps", "6, 10", []],
        flags=[False, True, False, False, False, False, False, 3, False],
    )
    assert len(made.pictures) == 5
    grid = house.pixels(made.pictures[0].image)
    assert grid.shape == (131, 131, 3)
    cells = [house.pixels(picture.image) for picture in made.pictures[1:]]
    assert np.array_equal(grid[:64, :64], cells[0])
    assert np.array_equal(grid[:64, 67:], cells[1])
    assert np.array_equal(grid[67:, :64], cells[2])
    alone = house.run(memory, "txt2img", prompt=WORDS.replace("red", "blue"), steps=10)
    assert np.array_equal(cells[3], house.pixels(alone.pictures[0].image))
    assert house.read(made.pictures[4].image).foreground == "blue"
    assert made.info["infotexts"][4] == alone.info["infotexts"][0]
    assert made.info["index_of_first_image"] == 1
    assert len(made.info["all_seeds"]) == 5
    fields = parse(made.info["infotexts"][0])
    assert fields["Script"] == "X/Y/Z plot"
    assert (fields["X Type"], fields["X Values"]) == ("Prompt S/R", "red, blue")


def test_each_z_has_a_grid_of_its_own(memory: ModelMemory) -> None:
    made = plotted(
        memory,
        ["Seed", "1, 2", []],
        NOTHING,
        ["Sampler", "", ["Euler", "Heun"]],
        flags=[True, False, True, False, 0],
        steps=2,
    )
    whole, first, second = (picture.image for picture in made.pictures)
    assert whole.size[0] == first.size[0] + second.size[0]
    assert first.size[1] > 64  # the legend


def test_seeds_are_fixed_unless_they_are_to_vary(memory: ModelMemory) -> None:
    axis = ["CFG Scale", "3, 5", []]
    fixed = plotted(memory, axis, steps=1, seed=-1)
    assert fixed.info["all_seeds"] == [1234, 1234, 1234]
    flags = [True, True, False, False, True, False, False, 0, False]
    varied = plotted(memory, axis, flags=flags, steps=1)
    assert varied.info["all_seeds"] == [7, 7, 8]


def test_progress_counts_the_cells(memory: ModelMemory) -> None:
    arguments = ["Steps", "1, 2", [], *NOTHING, *NOTHING]
    body = house.SMALL | {"prompt": "a", "script_name": "X/Y/Z plot", "script_args": arguments}
    work = context(memory.device, "txt2img", body, {"Stable-diffusion": [house.CHECKPOINT]}, memory)
    find_task("txt2img", house.TASKS)(work)
    assert isinstance(work.progress, Steps)
    assert work.progress.announced == [(2, 1), (2, 2)]
    assert work.progress.steps == [(1, 0, 1), (1, 1, 1), (2, 1, 1)]


def parsed(*rest: Any) -> Plot:
    return parse_plot([*("Seed", "1"), [], *NOTHING, *NOTHING, *rest], "txt2img")


def test_arguments_are_those_of_each_version_of_the_script() -> None:
    newest = parsed(True, False, True, False, True, False, False, 7, True)
    assert (newest.has_legend, newest.with_lone_images, newest.with_sub_grids) == (True, False, True)
    assert (newest.varies, newest.margin) == ((True, False, False), 7)
    before = parsed(False, True, False, True, 9)
    assert (before.has_legend, before.keeps_random, before.margin) == (False, True, 9)
    older = parse_plot([1, "5-7", 4, "1, 2", 0, "", True, True, False, False, 0], "txt2img")
    assert [axis.name for axis in older.axes] == ["Seed", "Steps", "Nothing"]
    assert older.axes[0].values == (5, 6, 7)


def test_a_plot_that_is_too_large_is_refused(memory: ModelMemory) -> None:
    with pytest.raises(RequestFault, match="would make 110 pictures and give 111: at most 64"):
        plotted(memory, ["Seed", "1-11", []], ["Steps", "1-10", []])
    with pytest.raises(RequestFault, match="grid of the X/Y/Z plot would have 210 million pixels"):
        plotted(memory, ["Seed", "1-50", []], width=2048, height=2048)


def test_another_script_is_refused(memory: ModelMemory) -> None:
    with pytest.raises(RequestFault, match="script_name 'SD upscale' is not done by this worker"):
        house.run(memory, "txt2img", prompt=WORDS, script_name="SD upscale")
    with pytest.raises(RequestFault, match="script_args must be the list of the X/Y/Z plot's arguments"):
        house.run(memory, "txt2img", prompt=WORDS, script_name="x/y/z plot")
