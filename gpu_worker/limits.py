"""Every limit on the parameters of a job, in one table, with the sentences that name them."""

import math
from dataclasses import dataclass
from typing import Any

from gpu_worker.errors import RequestFault

MAX_PARAMETER_BYTES = 32 * 1024 * 1024
MAX_DEPTH = 32
MAX_TEXT_LENGTH = 20_000
MAX_NAME_LENGTH = 255
MAX_IMAGES = 64
MAX_SEED = 2**53
SIZE_MULTIPLE = 8
SHOWN_LENGTH = 40


@dataclass(frozen=True, slots=True)
class Limit:
    """The allowed range of a number, both ends included, and its value when a request names none."""

    default: float
    minimum: float
    maximum: float
    whole: bool = False


# The defaults are those of the WebUI's StableDiffusionProcessing.
LIMITS: dict[str, Limit] = {
    "steps": Limit(20, 1, 150, whole=True),
    "cfg_scale": Limit(7.0, 1.0, 100.0),
    "width": Limit(512, 64, 2048, whole=True),
    "height": Limit(512, 64, 2048, whole=True),
    "batch_size": Limit(1, 1, 16, whole=True),
    "n_iter": Limit(1, 1, MAX_IMAGES, whole=True),
    "seed": Limit(-1, -1, MAX_SEED, whole=True),
    "subseed": Limit(-1, -1, MAX_SEED, whole=True),
    "subseed_strength": Limit(0.0, 0.0, 1.0),
    "eta": Limit(0.0, 0.0, 1.0),
    "s_noise": Limit(1.0, 0.0, 10.0),
    "s_churn": Limit(0.0, 0.0, 100.0),
    "s_tmin": Limit(0.0, 0.0, 1000.0),
    "s_tmax": Limit(0.0, 0.0, 1e9),
    "s_min_uncond": Limit(0.0, 0.0, 15.0),
    "skip_early_cond": Limit(0.0, 0.0, 1.0),
    "eta_noise_seed_delta": Limit(0, 0, 2**32, whole=True),
    # The default is that of the WebUI's interface.
    "refiner_switch_at": Limit(0.8, 0.0, 1.0),
    # 0 and less mean the picture's own size.
    "seed_resize_from_w": Limit(0, -1, 2048, whole=True),
    "seed_resize_from_h": Limit(0, -1, 2048, whole=True),
    "CLIP_stop_at_last_layers": Limit(1, 1, 12, whole=True),
    # Those of the WebUI's StableDiffusionProcessingImg2Img.
    "denoising_strength": Limit(0.75, 0.0, 1.0),
    "img2img.resize_mode": Limit(0, 0, 3, whole=True),
    "image_cfg_scale": Limit(1.5, 0.0, 100.0),
    "initial_noise_multiplier": Limit(1.0, 0.0, 2.0),
    "mask_blur": Limit(4, 0, 256),
    "inpainting_fill": Limit(0, 0, 3, whole=True),
    "inpaint_full_res_padding": Limit(0, 0, 1024, whole=True),
    # Those of the WebUI's StableDiffusionProcessingTxt2Img; 0 means that another field decides.
    "hr_scale": Limit(2.0, 1.0, 8.0),
    "hr_resize_x": Limit(0, 0, 4096, whole=True),
    "hr_resize_y": Limit(0, 0, 4096, whole=True),
    "firstphase_width": Limit(0, 0, 2048, whole=True),
    "firstphase_height": Limit(0, 0, 2048, whole=True),
    "hr_second_pass_steps": Limit(0, 0, 150, whole=True),
    "hr_cfg": Limit(0.0, 0.0, 100.0),
    # Those of the extension sd-webui-controlnet; -1 is a preprocessor's own value.
    "controlnet.weight": Limit(1.0, 0.0, 2.0),
    "processor_res": Limit(-1, -1, 2048, whole=True),
    "threshold_a": Limit(-1, -1, 2048),
    "threshold_b": Limit(-1, -1, 2048),
    "guidance_start": Limit(0.0, 0.0, 1.0),
    "guidance_end": Limit(1.0, 0.0, 1.0),
    # Of the script X/Y/Z plot: pixels between its pictures.
    "margin_size": Limit(0, 0, 500, whole=True),
    # Those of the WebUI's ExtrasBaseRequest; the sizes are bounded by the pixels of the result.
    "extras.resize_mode": Limit(0, 0, 1, whole=True),
    "upscaling_resize": Limit(2.0, 1.0, 8.0),
    "upscaling_resize_w": Limit(512, 1, 16_384, whole=True),
    "upscaling_resize_h": Limit(512, 1, 16_384, whole=True),
    "extras_upscaler_2_visibility": Limit(0.0, 0.0, 1.0),
    "gfpgan_visibility": Limit(0.0, 0.0, 1.0),
    "codeformer_visibility": Limit(0.0, 0.0, 1.0),
    "codeformer_weight": Limit(0.0, 0.0, 1.0),
    # The setting of the same meaning for restore_faces.
    "code_former_weight": Limit(0.5, 0.0, 1.0),
    "interrogate.threshold": Limit(0.35, 0.0, 1.0),
}


def number(field: str, value: Any) -> float:
    """`value` of `field` as a finite number inside its limit; None is the default; numbers as text are read.

    Raises `RequestFault` naming the field, the limit and the value.
    """
    limit = LIMITS[field]
    if value is None:
        return limit.default
    kind = "a whole number" if limit.whole else "a number"
    shown_field = field.rpartition(".")[2]
    allowed = f"{shown_field} must be {kind} from {limit.minimum:g} to {limit.maximum:g}, not {shown(value)}"
    parsed = _parse(value)
    if parsed is None or not math.isfinite(parsed) or not limit.minimum <= parsed <= limit.maximum:
        raise RequestFault(allowed)
    if limit.whole and parsed != int(parsed):
        raise RequestFault(allowed)
    return parsed


def whole(field: str, value: Any) -> int:
    """Like `number`, for fields that count."""
    return int(number(field, value))


def flag(field: str, value: Any, default: bool = False) -> bool:
    """`value` of `field` as yes or no; None is the default, 0 and 1 are read."""
    if value is None:
        return default
    if isinstance(value, bool) or value in (0, 1):
        return bool(value)
    raise RequestFault(f"{field} must be true or false, not {shown(value)}")


def text(field: str, value: Any, maximum: int = MAX_TEXT_LENGTH) -> str:
    """`value` of `field` as text of at most `maximum` characters; None is empty."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise RequestFault(f"{field} must be text, not {shown(value)}")
    if len(value) > maximum:
        raise RequestFault(f"{field} must have at most {maximum} characters, it has {len(value)}")
    return value


def shown(value: Any) -> str:
    """A value as a sentence may show it: short, whatever it is."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and value.bit_length() > 128:
        return "a number of more than 38 digits"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, dict):
        return f"an object of {len(value)} fields"
    rendered = repr(value)
    return rendered if len(rendered) <= SHOWN_LENGTH else rendered[:SHOWN_LENGTH] + "…"


def _parse(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, str) and len(value) <= SHOWN_LENGTH:
        try:
            return float(value)
        except ValueError:
            return None
    if isinstance(value, int):
        return float(value) if value.bit_length() <= 64 else math.inf
    return value if isinstance(value, float) else None
