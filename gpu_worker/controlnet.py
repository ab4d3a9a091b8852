"""Holds pictures to the maps of ControlNet units: what they add to the UNet at every step."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from PIL import Image

from gpu_worker import preprocessors
from gpu_worker.controlnet_loading import CONTROLNET_TYPE, load_controlnet
from gpu_worker.controlnet_parameters import BALANCED, BOTH, CONTROL, HIGH, LOW, Unit, parse_units
from gpu_worker.denoising import Evaluation, Residuals
from gpu_worker.errors import RequestFault
from gpu_worker.generation import Canvas, Start
from gpu_worker.inpainting import Prepared
from gpu_worker.jobs import ModelFile
from gpu_worker.resizing import FILL, resize
from gpu_worker.starts import Begin
from gpu_worker.tasks import TaskContext
from gpu_worker.upscaling import named_file

# How much weaker each residual is than the next deeper one when the prompt matters more: scripts/hook.py of
# https://github.com/Mikubill/sd-webui-controlnet
SOFTENING = 0.825
Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Control:
    """A unit with the files that it needs."""

    unit: Unit
    file: ModelFile
    network: ModelFile | None


@dataclass(frozen=True, slots=True)
class _Active:
    """A unit in one pass: its network, and its map for each picture of the batch, or one for all."""

    unit: Unit
    model: Any
    hint: torch.Tensor
    is_soft: bool

    def residuals(self, evaluation: Evaluation) -> Residuals | None:
        """What it adds to the rows now; None outside of its part of the steps."""
        if not self.unit.start <= evaluation.progress <= self.unit.end or self.unit.weight == 0:
            return None
        rows, dtype = evaluation.rows, self.model.dtype
        hint = self.hint if len(self.hint) == 1 else self.hint[rows.pictures]
        down, middle = self.model(
            evaluation.sample.to(dtype),
            evaluation.timestep,
            encoder_hidden_states=rows.embeddings.to(dtype),
            controlnet_cond=hint.expand(len(evaluation.sample), -1, -1, -1).to(dtype),
            added_cond_kwargs=rows.added,
            return_dict=False,
        )
        found = [*down, middle]
        shares = [self.unit.weight * (SOFTENING**depth if self.is_soft else 1.0) for depth in _depths(found)]
        for_rows = torch.ones_like(rows.negative) if self.unit.mode != CONTROL else 1 - rows.negative
        scaled = [
            one * (share * for_rows).view(-1, 1, 1, 1).to(dtype)
            for one, share in zip(found, shares, strict=True)
        ]
        return Residuals(tuple(scaled[:-1]), scaled[-1])


@dataclass(frozen=True, slots=True)
class ControlNets:
    """The units of a job; `prepared` are the pictures of img2img, None in txt2img."""

    context: TaskContext
    controls: tuple[_Control, ...]
    prepared: Prepared | None = None
    _maps: dict[tuple[int, Size], list[Image.Image]] = field(default_factory=dict)

    @property
    def fields(self) -> dict[str, object]:
        """What infotexts say of the units."""
        return {f"ControlNet {control.unit.place}": control.unit.info() for control in self.controls}

    @property
    def files(self) -> tuple[ModelFile, ...]:
        """The ControlNets' files."""
        return tuple(control.file for control in self.controls)

    def wrap(self, begin: Begin) -> Begin:
        """Adds the units to the only or the first pass."""
        return self._wrapped(begin, (BOTH, LOW), is_second=False)

    def wrap_second(self, begin: Begin) -> Begin:
        """Adds them to the second pass of hires fix, softly, as the extension does against artefacts."""
        return self._wrapped(begin, (BOTH, HIGH), is_second=True)

    def returned_maps(self) -> list[Image.Image]:
        """The maps that units ask to be given, in the size of the first pass."""
        asked = [control.unit.place for control in self.controls if control.unit.returns_map]
        by_place = {place: maps for (place, _), maps in reversed(self._maps.items())}
        return [by_place[place][0] for place in asked if place in by_place]

    def _wrapped(self, begin: Begin, passes: Sequence[str], is_second: bool) -> Begin:
        def wrapped(canvas: Canvas) -> Start:
            start = begin(canvas)
            active = [
                self._active(control, canvas, is_second)
                for control in self.controls
                if control.unit.passes in passes
            ]

            def residuals(evaluation: Evaluation) -> Residuals | None:
                found = [one for unit in active if (one := unit.residuals(evaluation)) is not None]
                return _sum(found) if found else None

            return replace(start, hooks=replace(start.hooks, residuals=residuals))

        return wrapped

    def _active(self, control: _Control, canvas: Canvas, is_second: bool) -> _Active:
        unit = control.unit
        size = canvas.plan.width, canvas.plan.height
        model = load_controlnet(self.context, control.file, canvas.checkpoint)
        maps = self._drawn(control, size)
        masks = self._masks(unit, size) if unit.module in preprocessors.INPAINT else None
        hints = torch.cat([_hint(one, masks) for one in maps])
        if len(hints) > 1:
            hints = hints[[request.source.place for request in canvas.requests]]
        return _Active(unit, model, hints.to(canvas.noise.device), is_second or unit.mode != BALANCED)

    def _drawn(self, control: _Control, size: Size) -> list[Image.Image]:
        """The unit's maps in the size of the pictures: one, or one for each picture of img2img."""
        key = control.unit.place, size
        if key not in self._maps:
            sources = [control.unit.picture] if control.unit.picture else list(self.prepared.pictures)  # type: ignore[union-attr]
            self._maps[key] = [self._map(control, source, size) for source in sources]
        return self._maps[key]

    def _map(self, control: _Control, picture: Image.Image, size: Size) -> Image.Image:
        unit = control.unit
        if unit.picture is not None:
            picture = self._cropped(unit, picture)
        if unit.module != preprocessors.NONE and unit.module not in preprocessors.INPAINT:
            picture = _at_resolution(picture, unit, size)
            thresholds = unit.threshold_a, unit.threshold_b
            picture = preprocessors.apply(self.context, unit.module, control.network, picture, thresholds)
        return resize(unit.resize_mode, picture, *size)

    def _cropped(self, unit: Unit, picture: Image.Image) -> Image.Image:
        """The part of a unit's own picture that is drawn when only the masked part of a picture is."""
        if self.prepared is None or self.prepared.box is None:
            return picture
        return resize(unit.resize_mode, picture, *self.prepared.kept[0].size).crop(self.prepared.box)

    def _masks(self, unit: Unit, size: Size) -> Image.Image | None:
        mask = unit.mask
        if mask is not None and unit.picture is not None:
            mask = self._cropped(unit, mask)
        if mask is None and self.prepared is not None:
            mask = self.prepared.mask
        return None if mask is None else resize(unit.resize_mode, mask.convert("L"), *size)


def find_controlnets(context: TaskContext, prepared: Prepared | None = None) -> ControlNets | None:
    """The units of a job, None without any; raises `RequestFault` before a checkpoint is loaded."""
    units = parse_units(context.parameters)
    controls = []
    for unit in units:
        called = f"controlnet unit {unit.place}"
        if unit.picture is None and prepared is None:
            raise RequestFault(f"{called} has no image, and txt2img has none that could stand in for it")
        network = preprocessors.network_file(context, called, unit.module)
        controls.append(_Control(unit, _file(context, called, unit.model), network))
    return ControlNets(context, tuple(controls), prepared) if controls else None


def _file(context: TaskContext, called: str, model: str) -> ModelFile:
    files = context.job.of_type(CONTROLNET_TYPE)
    file = named_file(files, model.split(" [")[0].strip())
    if file is None:
        names = ", ".join(one.name for one in files) or "none"
        raise RequestFault(
            f"{called}: model {model[:80]!r} is not among the job's models.{CONTROLNET_TYPE} ({names})"
        )
    return file


def _at_resolution(picture: Image.Image, unit: Unit, size: Size) -> Image.Image:
    """The picture with its shorter side as the preprocessor is to see it."""
    shorter = unit.resolution
    if unit.is_pixel_perfect:
        # Such that one pixel of the map becomes one of the picture that is made.
        factors = size[0] / picture.width, size[1] / picture.height
        fits = min(factors) if unit.resize_mode == FILL else max(factors)
        shorter = max(1, round(fits * min(picture.size)))
    factor = shorter / min(picture.size)
    width, height = (max(1, min(4096, round(side * factor))) for side in picture.size)
    return picture.resize((width, height), Image.Resampling.LANCZOS)


def _hint(drawn: Image.Image, mask: Image.Image | None) -> torch.Tensor:
    """The map as (1, 3, height, width) from 0 to 1, and -1 where an inpainting ControlNet is to draw."""
    pixels = np.asarray(drawn.convert("RGB"), dtype=np.float32) / 255
    if mask is not None:
        pixels = np.where(np.asarray(mask)[..., None] > 127, np.float32(-1), pixels)
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None]


def _depths(found: Sequence[torch.Tensor]) -> range:
    """How far each residual lies above the deepest one."""
    return range(len(found) - 1, -1, -1)


def _sum(parts: Sequence[Residuals]) -> Residuals:
    down = tuple(torch.stack(layers).sum(0) for layers in zip(*(one.down for one in parts), strict=True))
    return Residuals(down, torch.stack([one.middle for one in parts]).sum(0))
