"""What a request says of hires fix: sizes, upscaler, and what is different in the second pass, checked."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from dataclasses import fields as fields_of
from typing import Any

from gpu_worker.errors import RequestFault
from gpu_worker.infotext import exact
from gpu_worker.limits import MAX_NAME_LENGTH, SIZE_MULTIPLE, flag, number, text, whole
from gpu_worker.samplers import Sampling, choose_sampling
from gpu_worker.styles import NO_STYLES, Styles

# modules/shared_items.py (latent_upscale_modes) of the WebUI: torch's modes of interpolation, and antialias.
LATENT_MODES = {
    "Latent": ("bilinear", False),
    "Latent (antialiased)": ("bilinear", True),
    "Latent (bicubic)": ("bicubic", False),
    "Latent (bicubic antialiased)": ("bicubic", True),
    "Latent (nearest)": ("nearest", False),
    "Latent (nearest-exact)": ("nearest-exact", False),
}
DEFAULT_UPSCALER = "Latent"
MOST_SIDE = 4096
SAME = ("", "Use same sampler", "Use same scheduler", "Use same checkpoint")
KNOWN = frozenset(
    {
        *("enable_hr", "hr_scale", "hr_resize_x", "hr_resize_y", "hr_upscaler", "hr_second_pass_steps"),
        *("hr_sampler_name", "hr_scheduler", "hr_prompt", "hr_negative_prompt", "hr_cfg"),
        *("denoising_strength", "firstphase_width", "firstphase_height", "hr_checkpoint_name"),
    }
)


@dataclass(frozen=True, slots=True)
class Hires:
    """A checked wish for a second pass; `enlarged` is the size before `size` is cut out of its middle.

    Prompts are empty where they are those of the first pass.
    """

    size: tuple[int, int]
    enlarged: tuple[int, int]
    upscaler: str
    steps: int
    strength: float
    sampling: Sampling
    cfg_scale: float
    prompt: str
    negative_prompt: str
    fields: Mapping[str, object]

    @property
    def is_latent(self) -> bool:
        """Whether latents are enlarged, and not pictures."""
        return self.upscaler in LATENT_MODES

    @property
    def key(self) -> Hashable:
        """Jobs with equal keys want the same second pass."""
        return tuple(getattr(self, one.name) for one in fields_of(self) if one.name != "fields")


def with_first_phase(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """The body in today's words where it names the first pass's size, as older clients of the WebUI do.

    ``StableDiffusionProcessingTxt2Img`` in modules/processing.py of the WebUI.
    """
    first = [whole(name, document.get(name)) for name in ("firstphase_width", "firstphase_height")]
    if not any(first) or not flag("enable_hr", document.get("enable_hr")):
        return document
    final = [whole(name, document.get(name)) for name in ("width", "height")]
    width = first[0] or first[1] * final[0] // final[1]
    height = first[1] or first[0] * final[1] // final[0]
    return {**document, "width": width, "height": height, "hr_resize_x": final[0], "hr_resize_y": final[1]}


def parse_hires(document: Mapping[str, Any], base: Any, styles: Styles = NO_STYLES) -> Hires | None:
    """Reads what belongs to hires fix; `base` is the checked txt2img request, with its `styles`
    applied. None when it is off.

    Raises `RequestFault` naming the field.
    """
    if not flag("enable_hr", document.get("enable_hr")):
        return None
    checkpoint = text("hr_checkpoint_name", document.get("hr_checkpoint_name"), MAX_NAME_LENGTH)
    if checkpoint not in (*SAME, base.checkpoint):
        raise RequestFault("hr_checkpoint_name is not supported, and would change the picture")
    sampling = _sampling(document, base.sampling)
    steps = whole("hr_second_pass_steps", document.get("hr_second_pass_steps"))
    cfg_scale = number("hr_cfg", document.get("hr_cfg"))
    enlarged, size, said = _sizes(document, base.width, base.height)
    upscaler = text("hr_upscaler", document.get("hr_upscaler"), MAX_NAME_LENGTH) or DEFAULT_UPSCALER
    strength = number("denoising_strength", document.get("denoising_strength"))
    own = text("hr_prompt", document.get("hr_prompt"))
    own_negative = text("hr_negative_prompt", document.get("hr_negative_prompt"))
    styled = styles.apply(own, own_negative, base.styles)
    prompt, negative = (made if said else "" for made, said in zip(styled, (own, own_negative), strict=True))
    fields = {
        "Denoising strength": exact(strength),
        **said,
        "Hires upscaler": upscaler,
        "Hires steps": steps or None,
        "Hires CFG scale": exact(cfg_scale) if cfg_scale else None,
        "Hires sampler": sampling.sampler if sampling.sampler != base.sampling.sampler else None,
        "Hires schedule type": _other_schedule(sampling, base.sampling),
        "Hires prompt": prompt if prompt not in ("", base.prompt) else None,
        "Hires negative prompt": negative if negative not in ("", base.negative_prompt) else None,
    }
    return Hires(
        size=size,
        enlarged=enlarged,
        upscaler=upscaler,
        steps=steps or base.steps,
        strength=strength,
        sampling=sampling,
        cfg_scale=cfg_scale or base.cfg_scale,
        prompt=prompt if prompt != base.prompt else "",
        negative_prompt=negative if negative != base.negative_prompt else "",
        fields=fields,
    )


def _sampling(document: Mapping[str, Any], base: Sampling) -> Sampling:
    sampler = text("hr_sampler_name", document.get("hr_sampler_name"), MAX_NAME_LENGTH)
    schedule = text("hr_scheduler", document.get("hr_scheduler"), MAX_NAME_LENGTH)
    if sampler in SAME and schedule in SAME:
        return base
    return choose_sampling(
        base.sampler if sampler in SAME else sampler, base.asked_schedule if schedule in SAME else schedule
    )


def _other_schedule(sampling: Sampling, base: Sampling) -> str | None:
    return sampling.asked_schedule if sampling.asked_schedule != base.asked_schedule else None


def _sizes(
    document: Mapping[str, Any], width: int, height: int
) -> tuple[tuple[int, int], tuple[int, int], dict[str, object]]:
    """``calculate_target_resolution`` in modules/processing.py of the WebUI: enlarged, final, its text."""
    x, y = (whole(name, document.get(name)) for name in ("hr_resize_x", "hr_resize_y"))
    scale = number("hr_scale", document.get("hr_scale"))
    if x == 0 and y == 0:
        enlarged = int(width * scale), int(height * scale)
        size, said = enlarged, {"Hires upscale": exact(scale)}
    else:
        by_width = y == 0 or (x != 0 and width / height < x / y)
        enlarged = (x, x * height // width) if by_width else (y * width // height, y)
        size = (x, y) if x and y else enlarged
        said = {"Hires resize": f"{x}x{y}"}
    if max(enlarged) > MOST_SIDE:
        raise RequestFault(
            f"hires fix would make a picture of {enlarged[0]}x{enlarged[1]} pixels: allowed are sides of "
            f"{MOST_SIDE}"
        )
    return _whole_latents(enlarged), _whole_latents(size), dict(said)


def _whole_latents(size: tuple[int, int]) -> tuple[int, int]:
    width, height = (max(SIZE_MULTIPLE, side // SIZE_MULTIPLE * SIZE_MULTIPLE) for side in size)
    return width, height
