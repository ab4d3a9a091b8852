"""The units of ``alwayson_scripts.controlnet``: what each is to hold the picture to, checked."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image

from gpu_worker import preprocessors
from gpu_worker.errors import RequestFault
from gpu_worker.images import flatten, read_picture
from gpu_worker.infotext import exact
from gpu_worker.limits import MAX_NAME_LENGTH, flag, number, shown, text, whole
from gpu_worker.masks import binary_mask
from gpu_worker.parameters import CONTROLNET_NAMES
from gpu_worker.resizing import CROP, FILL, JUST_RESIZE

# The fields of units: https://github.com/Mikubill/sd-webui-controlnet/wiki/API
MOST_UNITS = 10
BALANCED, PROMPT, CONTROL = range(3)
MODES = {
    "Balanced": BALANCED,
    "My prompt is more important": PROMPT,
    "ControlNet is more important": CONTROL,
}
RESIZE_MODES = {
    "Just Resize": JUST_RESIZE,
    "Crop and Resize": CROP,
    "Resize and Fill": FILL,
    "Scale to Fit (Inner Fit)": CROP,
    "Envelope (Outer Fit)": FILL,
}
SHOWN_MODES = tuple(RESIZE_MODES)[:3]
BOTH, LOW, HIGH = "Both", "Low res only", "High res only"
REFUSED = ("effective_region_mask", "ipadapter_input", "advanced_weighting")
DEFAULT_RESOLUTION = 512


@dataclass(frozen=True, slots=True)
class Unit:
    """A checked unit; `picture` None means the picture that img2img starts from.

    `weight` is how strongly, `start` to `end` (0 to 1) when it acts; `passes` names those of hires fix.
    """

    place: int
    module: str
    model: str
    weight: float
    picture: Image.Image | None
    mask: Image.Image | None
    resize_mode: int
    resolution: int
    threshold_a: float | None
    threshold_b: float | None
    start: float
    end: float
    mode: int
    is_pixel_perfect: bool
    returns_map: bool
    passes: str

    def info(self) -> str:
        """What the extension writes into an infotext."""
        mode = next(name for name, value in MODES.items() if value == self.mode)
        parts: dict[str, object] = {
            "Module": self.module,
            "Model": self.model,
            "Weight": exact(self.weight),
            "Resize Mode": SHOWN_MODES[self.resize_mode],
            "Processor Res": None if self.is_pixel_perfect else self.resolution,
            "Threshold A": None if self.threshold_a is None else exact(self.threshold_a),
            "Threshold B": None if self.threshold_b is None else exact(self.threshold_b),
            "Guidance Start": exact(self.start),
            "Guidance End": exact(self.end),
            "Pixel Perfect": self.is_pixel_perfect,
            "Control Mode": mode,
            "Hr Option": self.passes if self.passes != BOTH else None,
        }
        return ", ".join(f"{name}: {value}" for name, value in parts.items() if value is not None)


def parse_units(document: Mapping[str, Any]) -> tuple[Unit, ...]:
    """The units that are on; raises `RequestFault` naming the field."""
    scripts = document.get("alwayson_scripts") or {}
    for name in scripts if isinstance(scripts, dict) else ():
        if name.casefold() in CONTROLNET_NAMES:
            script = scripts[name]
            arguments = script.get("args") if isinstance(script, dict) else None
            if arguments is not None and not isinstance(arguments, list):
                raise RequestFault(f"alwayson_scripts.{name}.args must be a list, not {shown(arguments)}")
            given = [entry for entry in arguments or [] if isinstance(entry, dict)]
            if len(given) > MOST_UNITS:
                raise RequestFault(
                    f"alwayson_scripts.{name}.args has {len(given)} units: at most {MOST_UNITS} are allowed"
                )
            units = [_unit(place, entry) for place, entry in enumerate(given) if _is_on(place, entry)]
            return tuple(units)
    return ()


def _is_on(place: int, entry: Mapping[str, Any]) -> bool:
    return flag(f"controlnet unit {place}: enabled", entry.get("enabled"), default=True)


def _unit(place: int, entry: Mapping[str, Any]) -> Unit:
    called = f"controlnet unit {place}"
    for name in REFUSED:
        if entry.get(name):
            raise RequestFault(f"{called}: {name} is not supported, and would change the picture")
    module = preprocessors.known(called, text(f"{called}: module", entry.get("module"), MAX_NAME_LENGTH))
    model = text(f"{called}: model", entry.get("model"), MAX_NAME_LENGTH)
    if model in ("", "None"):
        raise RequestFault(f"{called} names no model: one of the job's models.ControlNet is needed")
    picture, mask = _pictures(called, entry)
    start, end = (
        number(name, entry.get(name, entry.get(older)))
        for name, older in (("guidance_start", "start"), ("guidance_end", "end"))
    )
    resolution = whole("processor_res", entry.get("processor_res"))
    return Unit(
        place=place,
        module=module,
        model=model,
        weight=number("controlnet.weight", entry.get("weight")),
        picture=picture,
        mask=mask,
        resize_mode=_choice(called, "resize_mode", entry.get("resize_mode"), RESIZE_MODES, CROP),
        resolution=resolution if resolution > 0 else DEFAULT_RESOLUTION,
        threshold_a=_threshold("threshold_a", entry),
        threshold_b=_threshold("threshold_b", entry),
        start=start,
        end=end,
        mode=_mode(called, entry),
        is_pixel_perfect=flag(f"{called}: pixel_perfect", entry.get("pixel_perfect")),
        returns_map=flag(f"{called}: save_detected_map", entry.get("save_detected_map"), default=True)
        and module != preprocessors.NONE,
        passes=text(f"{called}: hr_option", entry.get("hr_option"), MAX_NAME_LENGTH) or BOTH,
    )


def _pictures(called: str, entry: Mapping[str, Any]) -> tuple[Image.Image | None, Image.Image | None]:
    """Picture and mask, each base64 text by itself, or both in one object."""
    given = entry.get("image", entry.get("input_image"))
    mask = entry.get("mask", entry.get("mask_image"))
    if isinstance(given, list) and len(given) == 1:
        given = given[0]
    if isinstance(given, dict):
        mask = given.get("mask", mask)
        given = given.get("image")
    picture = flatten(read_picture(f"{called}: image", given)) if given else None
    if not mask or picture is None:
        return picture, None
    drawn = binary_mask(read_picture(f"{called}: mask", mask), is_rounded=True)
    # Interfaces send an empty mask along with every picture.
    return picture, drawn if drawn.getbbox() else None


def _mode(called: str, entry: Mapping[str, Any]) -> int:
    if entry.get("guessmode") is not None and "control_mode" not in entry:
        return CONTROL if flag(f"{called}: guessmode", entry["guessmode"]) else BALANCED
    return _choice(called, "control_mode", entry.get("control_mode"), MODES, BALANCED)


def _threshold(name: str, entry: Mapping[str, Any]) -> float | None:
    """Negative ones mean the preprocessor's own."""
    value = entry.get(name)
    return None if value is None or number(name, value) < 0 else number(name, value)


def _choice(called: str, name: str, value: Any, names: Mapping[str, int], default: int) -> int:
    if value is None:
        return default
    if isinstance(value, int) and not isinstance(value, bool) and value in (0, 1, 2):
        return value
    for known, meaning in names.items():
        if isinstance(value, str) and value.casefold() == known.casefold():
            return meaning
    known_names = ", ".join(tuple(names)[:3])
    raise RequestFault(f"{called}: {name} must be 0, 1, 2 or one of {known_names}, not {shown(value)}")
