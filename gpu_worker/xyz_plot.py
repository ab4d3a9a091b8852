"""The script "x/y/z plot": the same request in many variations, laid out in a grid."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from PIL import Image

from gpu_worker import infotext, xyz_grid
from gpu_worker.errors import RequestFault
from gpu_worker.infotext_request import with_infotext
from gpu_worker.limits import LIMITS, MAX_IMAGES, flag, shown, whole
from gpu_worker.tasks import Picture, Progress, TaskContext, TaskResult
from gpu_worker.xyz_axes import NOTHING, Axis, read_axis

NAMES = ("x/y/z plot", "xyz_grid.py", "xyz plot", "x/y plot")
LETTERS = ("X", "Y", "Z")
MOST_GRID_PIXELS = 64 * 1024 * 1024
# One argument after the other: https://github.com/AUTOMATIC1111/stable-diffusion-webui, scripts/xyz_grid.py
AXIS_ARGUMENTS = 9
OLDER_AXIS_ARGUMENTS = 6

MakePictures = Callable[[TaskContext], TaskResult]


@dataclass(frozen=True, slots=True)
class Plot:
    """A checked plot; `varies` says along which axes each cell has another seed."""

    axes: tuple[Axis, Axis, Axis]
    has_legend: bool
    with_lone_images: bool
    with_sub_grids: bool
    keeps_random: bool
    varies: tuple[bool, bool, bool]
    margin: int

    @property
    def cells(self) -> int:
        """How many pictures are made."""
        return len(self.axes[0].values) * len(self.axes[1].values) * len(self.axes[2].values)

    def infotext(self, of_first_cell: str) -> str:
        """The infotext of a grid: that of its first picture, and the axes."""
        fields: dict[str, object] = {"Script": "X/Y/Z plot"}
        for letter, axis in zip(LETTERS, self.axes, strict=True):
            if axis.name != NOTHING:
                fields[f"{letter} Type"] = axis.name
                values = [", ".join(one) if isinstance(one, tuple) else str(one) for one in axis.values]
                fields[f"{letter} Values"] = ", ".join(values)
        said = ", ".join(f"{name}: {infotext.quote(value)}" for name, value in fields.items())
        return f"{of_first_cell}, {said}"


def is_plot(document: Mapping[str, Any]) -> bool:
    """Whether the request names this script; raises `RequestFault` for another one."""
    name = document.get("script_name")
    if name in (None, "", "None"):
        return False
    if isinstance(name, str) and name.strip().casefold() in NAMES:
        return True
    raise RequestFault(f"script_name {shown(name)} is not done by this worker; it does X/Y/Z plot")


def run(context: TaskContext, make_pictures: MakePictures) -> TaskResult:
    """Makes every cell with `make_pictures`; the grids come first, as in the WebUI."""
    document = {**with_infotext(context.parameters), "script_name": None, "script_args": []}
    plot = parse_plot(context.parameters.get("script_args"), context.job.task_type)
    _check_size(plot, document)
    if document.get("seed") in (None, -1, "-1") and not plot.keeps_random:
        document["seed"] = context.job.seed
    results: list[TaskResult] = []
    for index, places in enumerate(product(*(range(len(axis.values)) for axis in reversed(plot.axes)))):
        progress = _CellProgress(context.progress, plot.cells, index)
        body = _cell(plot, document, places[::-1])
        results.append(make_pictures(replace(context, parameters=body, progress=progress)))
    return _collected(plot, results)


def parse_plot(arguments: Any, task_type: str) -> Plot:
    """The plot of ``script_args``, in the order of the WebUI's script since 1.3 or before."""
    if not isinstance(arguments, list) or len(arguments) < OLDER_AXIS_ARGUMENTS:
        raise RequestFault(
            f"script_args must be the list of the X/Y/Z plot's arguments, at least {AXIS_ARGUMENTS} of them, "
            f"not {shown(arguments)}"
        )
    is_older = len(arguments) < AXIS_ARGUMENTS or isinstance(arguments[6], bool)
    count = OLDER_AXIS_ARGUMENTS if is_older else AXIS_ARGUMENTS
    given, rest = arguments[:count], arguments[count:]
    width = count // 3
    triples = [[*given[place : place + width], None][:3] for place in range(0, count, width)]
    flags = [entry for entry in rest if isinstance(entry, bool)]
    margins = [entry for entry in rest if not isinstance(entry, bool)]
    switches = [*flags, *[True, True, False, False][len(flags) :]]
    # Since 1.7 three more say along which axes seeds vary; the last one then says where values come from.
    varies = tuple(flags[4:7]) if len(flags) >= 7 else (False, False, False)
    from_text = flags[7] if len(flags) >= 8 else flags[4] if len(flags) == 5 else False
    axes = [
        read_axis(letter, kind, text, chosen, task_type, from_text=from_text, keeps_random=switches[3])
        for letter, (kind, text, chosen) in zip(LETTERS, triples, strict=True)
    ]
    return Plot(
        axes=(axes[0], axes[1], axes[2]),
        has_legend=flag("draw_legend", switches[0]),
        with_lone_images=switches[1],
        with_sub_grids=switches[2],
        keeps_random=switches[3],
        varies=(varies[0], varies[1], varies[2]),
        margin=whole("margin_size", margins[0] if margins else None),
    )


def _check_size(plot: Plot, document: Mapping[str, Any]) -> None:
    pictures = 1 + plot.cells * plot.with_lone_images + len(plot.axes[2].values) * plot.with_sub_grids
    if max(plot.cells, pictures) > MAX_IMAGES:
        raise RequestFault(
            f"the X/Y/Z plot would make {plot.cells} pictures and give {pictures}: at most {MAX_IMAGES}"
        )
    sides = [document.get(name) or LIMITS[name].default for name in ("width", "height")]
    if all(isinstance(side, int | float) for side in sides):
        pixels = plot.cells * sides[0] * sides[1]
        if pixels > MOST_GRID_PIXELS:
            raise RequestFault(
                f"the grid of the X/Y/Z plot would have {pixels / 1e6:.0f} million pixels: at most "
                f"{MOST_GRID_PIXELS / 1e6:.0f}"
            )


def _cell(plot: Plot, document: Mapping[str, Any], places: Sequence[int]) -> Mapping[str, Any]:
    """The request of one cell: one picture."""
    body: Mapping[str, Any] = {**document, "batch_size": 1, "n_iter": 1}
    for axis, place in zip(plot.axes, places, strict=True):
        body = axis.apply(body, axis.values[place])
    if not any(plot.varies):
        return body
    stride, shift = 1, 0
    for axis, place, varies in zip(plot.axes, places, plot.varies, strict=True):
        if varies:
            shift, stride = shift + place * stride, stride * len(axis.values)
    return {**body, "seed": int(body["seed"]) + shift} if isinstance(body.get("seed"), int) else body


def _collected(plot: Plot, results: Sequence[TaskResult]) -> TaskResult:
    x, y, z = plot.axes
    cells = [result.pictures[0] for result in results]
    layer_size = len(x.values) * len(y.values)
    layers = [cells[start : start + layer_size] for start in range(0, len(cells), layer_size)]
    grids = [_grid(plot, [cell.image for cell in layer]) for layer in layers]
    titles = [z.label(value) for value in z.values]
    if plot.has_legend and z.name != NOTHING:
        grids = [xyz_grid.titled(grid, title) for grid, title in zip(grids, titles, strict=True)]
    whole_grid = grids[0]
    if len(grids) > 1:
        whole_grid = xyz_grid.draw([grids], [""] * len(grids), [""], has_legend=False, margin=plot.margin)
    pictures = [Picture(whole_grid, plot.infotext(cells[0].infotext))]
    if plot.with_sub_grids:
        pictures += [
            Picture(grid, plot.infotext(layer[0].infotext)) for grid, layer in zip(grids, layers, strict=True)
        ]
    first_lone = len(pictures)
    if plot.with_lone_images:
        pictures += cells
    return TaskResult(pictures, _info(plot, results, pictures, first_lone))


def _grid(plot: Plot, layer: Sequence[Image.Image]) -> Image.Image:
    x, y, _ = plot.axes
    columns = len(x.values)
    rows = [layer[start : start + columns] for start in range(0, len(layer), columns)]
    across, down = ([axis.label(value) for value in axis.values] for axis in (x, y))
    return xyz_grid.draw(rows, across, down, has_legend=plot.has_legend, margin=plot.margin)


def _info(
    plot: Plot, results: Sequence[TaskResult], pictures: Sequence[Picture], first_lone: int
) -> dict[str, Any]:
    """The first cell's, with the lists of all pictures in their order."""
    info = dict(results[0].info)
    chosen = [results[0]] * first_lone + (list(results) if plot.with_lone_images else [])
    for name in ("all_prompts", "all_negative_prompts", "all_seeds", "all_subseeds"):
        info[name] = [result.info[name][0] for result in chosen]
    comments = dict.fromkeys(comment for result in results for comment in result.info["comments"])
    return {
        **info,
        "infotexts": [picture.infotext for picture in pictures],
        "index_of_first_image": first_lone if plot.with_lone_images else 0,
        "comments": list(comments),
    }


@dataclass(slots=True)
class _CellProgress:
    """The progress of one cell as a part of the whole plot's."""

    whole: Progress
    cells: int
    index: int

    def start(self, images: int, steps: int) -> None:
        """Cells may have different numbers of steps."""
        self.whole.start(self.cells, steps)

    def step(self, step: int, finished: int, batch: int) -> None:
        """Passes on a step."""
        self.whole.step(step, finished=self.index, batch=1)

    def check(self) -> None:
        """Stops where the plot is to stop."""
        self.whole.check()
