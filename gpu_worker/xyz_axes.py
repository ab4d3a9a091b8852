"""The axes of the X/Y/Z plot: what each value of theirs changes in a request body."""

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gpu_worker import xyz_values
from gpu_worker.errors import RequestFault
from gpu_worker.limits import shown

Document = Mapping[str, Any]
# The body with one value of the axis; the axis's first value comes last.
Change = Callable[[Document, Any, Any], Document]
MAX_DRAWN_SEED = 2**32
SEEDS = ("Seed", "Var. seed")


@dataclass(frozen=True, slots=True)
class Kind:
    """How an axis reads its values and applies them; in `tasks` it is offered."""

    read: Callable[[str, list[str]], list[Any]]
    change: Change | None
    tasks: tuple[str, ...] = ("txt2img", "img2img")


@dataclass(frozen=True, slots=True)
class Axis:
    """An axis of a plot: its name, its values, and how the legend shows them."""

    name: str
    values: tuple[Any, ...]

    def apply(self, document: Document, value: Any) -> Document:
        """The body with the value."""
        change = KINDS[self.name].change
        return document if change is None else change(document, value, self.values[0])

    def label(self, value: Any) -> str:
        """What the legend says of a value."""
        if self.name == NOTHING:
            return ""
        if isinstance(value, tuple):
            return ", ".join(value)
        text = f"{value:g}" if isinstance(value, float) else str(value)
        return text if self.name in BARE else f"{self.name}: {text}"


def _texts(_called: str, entries: list[str]) -> list[Any]:
    return list(entries)


def _field(name: str) -> Change:
    return lambda document, value, _first: {**document, name: value}


def _setting(name: str) -> Change:
    def change(document: Document, value: Any, _first: Any) -> Document:
        settings = document.get("override_settings") or {}
        if not isinstance(settings, dict):
            raise RequestFault(f"override_settings must be an object, not {shown(settings)}")
        return {**document, "override_settings": {**settings, name: value}}

    return change


def _search(document: Document, value: str, first: str) -> Document:
    prompts = {name: str(document.get(name) or "") for name in ("prompt", "negative_prompt")}
    if not any(first in prompt for prompt in prompts.values()):
        raise RequestFault(f"Prompt S/R: {first[:60]!r} is in neither prompt nor negative_prompt")
    return {**document, **{name: prompt.replace(first, value) for name, prompt in prompts.items()}}


def _order(document: Document, value: tuple[str, ...], _first: Any) -> Document:
    """The words in another order, with what stands between them where it was."""
    rest = str(document.get("prompt") or "")
    missing = [word for word in value if word not in rest]
    if missing:
        raise RequestFault(f"Prompt order: {missing[0][:60]!r} is not in the prompt")
    between = []
    for word in sorted(value, key=rest.find):
        before, _, rest = rest.partition(word)
        between.append(before)
    prompt = "".join(part + word for part, word in zip(between, value, strict=True)) + rest
    return {**document, "prompt": prompt}


def _size(document: Document, value: str, _first: Any) -> Document:
    width, by, height = value.lower().partition("x")
    if not by or not width.strip().isdecimal() or not height.strip().isdecimal():
        raise RequestFault(f"Size: {value[:40]!r} is no size such as 512x768")
    return {**document, "width": int(width), "height": int(height)}


def _styles(document: Document, value: str, _first: Any) -> Document:
    return {**document, "styles": [*(document.get("styles") or []), *value.split(",")]}


def _faces(document: Document, value: str, _first: Any) -> Document:
    off = value.casefold() in ("false", "no", "disabled", "off", "none", "0")
    return {**document, "restore_faces": not off}


NOTHING = "Nothing"
TEXT, IMAGE = ("txt2img",), ("img2img",)
_whole, _number = xyz_values.whole_numbers, xyz_values.numbers
# In the order of axis_options in scripts/xyz_grid.py of the WebUI, because requests may name axes by number.
KINDS: dict[str, Kind] = {
    NOTHING: Kind(_texts, None),
    "Seed": Kind(_whole, _field("seed")),
    "Var. seed": Kind(_whole, _field("subseed")),
    "Var. strength": Kind(_number, _field("subseed_strength")),
    "Steps": Kind(_whole, _field("steps")),
    "Hires steps": Kind(_whole, _field("hr_second_pass_steps"), TEXT),
    "CFG Scale": Kind(_number, _field("cfg_scale")),
    "Image CFG Scale": Kind(_number, _field("image_cfg_scale"), IMAGE),
    "Prompt S/R": Kind(_texts, _search),
    "Prompt order": Kind(xyz_values.orders, _order),
    "Sampler": Kind(_texts, _field("sampler_name")),
    "Hires sampler": Kind(_texts, _field("hr_sampler_name"), TEXT),
    "Checkpoint name": Kind(_texts, _setting("sd_model_checkpoint")),
    "Negative Guidance minimum sigma": Kind(_number, _field("s_min_uncond")),
    "Sigma Churn": Kind(_number, _field("s_churn")),
    "Sigma min": Kind(_number, _field("s_tmin")),
    "Sigma max": Kind(_number, _field("s_tmax")),
    "Sigma noise": Kind(_number, _field("s_noise")),
    "Schedule type": Kind(_texts, _field("scheduler")),
    "Schedule min sigma": Kind(_number, _setting("sigma_min")),
    "Schedule max sigma": Kind(_number, _setting("sigma_max")),
    "Schedule rho": Kind(_number, _setting("rho")),
    "Eta": Kind(_number, _field("eta")),
    "Clip skip": Kind(_whole, _setting("CLIP_stop_at_last_layers")),
    "Denoising": Kind(_number, _field("denoising_strength")),
    "Initial noise multiplier": Kind(_number, _field("initial_noise_multiplier")),
    "Extra noise": Kind(_number, _setting("img2img_extra_noise")),
    "Hires upscaler": Kind(_texts, _field("hr_upscaler"), TEXT),
    "Cond. Image Mask Weight": Kind(_number, _setting("inpainting_mask_weight"), IMAGE),
    "VAE": Kind(_texts, _setting("sd_vae")),
    "Styles": Kind(_texts, _styles),
    "UniPC Order": Kind(_whole, _setting("uni_pc_order")),
    "Face restore": Kind(_texts, _faces),
    "Token merging ratio": Kind(_number, _setting("token_merging_ratio")),
    "Token merging ratio high-res": Kind(_number, _setting("token_merging_ratio_hr")),
    "Always discard next-to-last sigma": Kind(_texts, _setting("always_discard_next_to_last_sigma")),
    "SGM noise multiplier": Kind(_texts, _setting("sgm_noise_multiplier")),
    "Refiner checkpoint": Kind(_texts, _field("refiner_checkpoint")),
    "Refiner switch at": Kind(_number, _field("refiner_switch_at")),
    "RNG source": Kind(_texts, _setting("randn_source")),
    "FP8 mode": Kind(_texts, _setting("fp8_storage")),
    "Size": Kind(_texts, _size),
}
# Axes whose setting this worker does not have: every cell would be the same.
WITHOUT_EFFECT = (
    *("Schedule min sigma", "Schedule max sigma", "Schedule rho", "Extra noise", "Cond. Image Mask Weight"),
    *("UniPC Order", "Token merging ratio", "Token merging ratio high-res", "FP8 mode", "RNG source"),
    *("Always discard next-to-last sigma", "SGM noise multiplier", "Image CFG Scale"),
)
# Legends that say what they are by themselves.
BARE = ("Prompt S/R", "Sampler", "Checkpoint name", "Schedule type", "Styles", "Size", "Hires upscaler")


def read_axis(
    letter: str, kind: Any, text: Any, chosen: Any, task_type: str, *, from_text: bool, keeps_random: bool
) -> Axis:
    """An axis from its three arguments; raises `RequestFault` that names it and what there is.

    `from_text` says that the text counts even where values were chosen from a list; `keeps_random` leaves
    seeds of -1 to be drawn for each cell.
    """
    name = _name(letter, kind, task_type)
    if name == NOTHING:
        return Axis(name, ("",))
    called = f"{letter} values of {name}"
    if isinstance(chosen, list) and chosen and not from_text:
        entries = [str(entry) for entry in chosen[: xyz_values.MOST_VALUES + 1]]
    elif isinstance(text, str):
        entries = xyz_values.split(text)
    else:
        raise RequestFault(f"{called} must be text, not {shown(text)}")
    if not 1 <= len(entries) <= xyz_values.MOST_VALUES:
        raise RequestFault(f"{called} must be 1 to {xyz_values.MOST_VALUES} values, not {len(entries)}")
    values = KINDS[name].read(called, entries)
    if name in SEEDS and not keeps_random:
        values = [secrets.randbelow(MAX_DRAWN_SEED) if value == -1 else value for value in values]
    return Axis(name, tuple(values))


def _name(letter: str, kind: Any, task_type: str) -> str:
    offered = [name for name, entry in KINDS.items() if task_type in entry.tasks]
    if kind in (None, ""):
        return NOTHING
    if isinstance(kind, int) and not isinstance(kind, bool) and 0 <= kind < len(offered):
        name = offered[kind]
    else:
        known = {name.casefold(): name for name in offered}
        name = known.get(str(kind).strip().casefold(), "")
    if name in WITHOUT_EFFECT:
        raise RequestFault(f"{letter} type {name!r} is not done by this worker, and would change nothing")
    if not name:
        usable = [one for one in offered if one not in WITHOUT_EFFECT]
        raise RequestFault(f"{letter} type {shown(kind)} is not known; there are {', '.join(usable)}")
    return name
