"""From an infotext to the request body that makes its picture again."""

from collections.abc import Callable, Mapping
from typing import Any

from gpu_worker.errors import RequestFault
from gpu_worker.infotext import SIZE, parse
from gpu_worker.limits import shown, text

# The WebUI's names of masked contents: modules/ui.py.
MASKED_CONTENT = {"fill": 0, "original": 1, "latent noise": 2, "latent nothing": 3}
FALSE = ("False", "None", "")

Read = Callable[[str], Any]


def _flag(written: str) -> bool:
    return written not in FALSE


def _fill(written: str) -> int:
    return MASKED_CONTENT[written]


# What each field of an infotext is in a request: the pairs of ``paste_fields`` in modules/ui.py and in
# processing_scripts/ of the WebUI, under the names of its API.
FIELDS: dict[str, tuple[str, Read]] = {
    "Prompt": ("prompt", str),
    "Negative prompt": ("negative_prompt", str),
    "Steps": ("steps", int),
    "Sampler": ("sampler_name", str),
    "Schedule type": ("scheduler", str),
    "CFG scale": ("cfg_scale", float),
    "Image CFG scale": ("image_cfg_scale", float),
    "Seed": ("seed", int),
    "Size-1": ("width", int),
    "Size-2": ("height", int),
    "Eta": ("eta", float),
    "Eta DDIM": ("eta", float),
    "Variation seed": ("subseed", int),
    "Variation seed strength": ("subseed_strength", float),
    "Seed resize from-1": ("seed_resize_from_w", int),
    "Seed resize from-2": ("seed_resize_from_h", int),
    "Sigma churn": ("s_churn", float),
    "Sigma tmin": ("s_tmin", float),
    "Sigma tmax": ("s_tmax", float),
    "Sigma noise": ("s_noise", float),
    "NGMS": ("s_min_uncond", float),
    "Tiling": ("tiling", _flag),
    "Face restoration": ("restore_faces", _flag),
    "Denoising strength": ("denoising_strength", float),
    "Refiner": ("refiner_checkpoint", str),
    "Refiner switch at": ("refiner_switch_at", float),
    "Hires upscale": ("hr_scale", float),
    "Hires resize-1": ("hr_resize_x", int),
    "Hires resize-2": ("hr_resize_y", int),
    "Hires steps": ("hr_second_pass_steps", int),
    "Hires upscaler": ("hr_upscaler", str),
    "Hires sampler": ("hr_sampler_name", str),
    "Hires schedule type": ("hr_scheduler", str),
    "Hires CFG scale": ("hr_cfg", float),
    "Hires checkpoint": ("hr_checkpoint_name", str),
    "Hires prompt": ("hr_prompt", str),
    "Hires negative prompt": ("hr_negative_prompt", str),
    "Mask blur": ("mask_blur", float),
    "Mask blur x": ("mask_blur_x", float),
    "Mask blur y": ("mask_blur_y", float),
    "Mask mode": ("inpainting_mask_invert", lambda written: written == "Inpaint not masked"),
    "Inpaint area": ("inpaint_full_res", lambda written: written == "Only masked"),
    "Masked area padding": ("inpaint_full_res_padding", int),
    "Masked content": ("inpainting_fill", _fill),
    "Resize mode": ("resize_mode", int),
    "Mask round": ("mask_round", _flag),
    "Noise multiplier": ("initial_noise_multiplier", float),
}
SETTINGS: dict[str, tuple[str, Read]] = {
    "Model": ("sd_model_checkpoint", str),
    "VAE": ("sd_vae", str),
    "Clip skip": ("CLIP_stop_at_last_layers", int),
    "Clip skip SDXL": ("sdxl_clip_l_skip", _flag),
    "ENSD": ("eta_noise_seed_delta", int),
    "NGMS all steps": ("s_min_uncond_all", _flag),
    "Skip Early CFG": ("skip_early_cond", float),
    "Face restoration": ("face_restoration_model", str),
}
# What needs not be read: it is said elsewhere, or it is what this worker always does.
SAID_ELSEWHERE = frozenset(
    {
        *("Size", "Seed resize from", "Hires resize", "Model hash", "VAE hash", "Version", "User"),
        *("Lora hashes", "TI hashes", "Hypernet hashes", "Hashes", "Hires resize-1", "Hires resize-2"),
    }
)
# Values of fields that have no counterpart here which say nothing else than what is done anyway.
USUAL = {
    "RNG": ("CPU",),
    "Emphasis": ("Original",),
    "Schedule rho": ("0", "0.0"),
    "Schedule max sigma": ("0", "0.0"),
    "Schedule min sigma": ("0", "0.0"),
    "VAE Encoder": ("Full",),
    "VAE Decoder": ("Full",),
    "FP8 weight": ("Disable",),
    "Refiner switch by sampling steps": ("False",),
}
# What an infotext of img2img means by saying nothing: ``parse_generation_parameters`` in
# modules/infotext_utils.py of the WebUI. Its API has other defaults.
UNSAID = {"Mask mode": "Inpaint masked", "Masked content": "original", "Inpaint area": "Whole picture"}
SIZES = ("Size", "Seed resize from", "Hires resize")


def request_from(infotext: str) -> dict[str, Any]:
    """The body, with the names of the WebUI's API; raises `RequestFault` for a field that makes no sense."""
    fields = parse(infotext)
    for name in SIZES:
        if match := SIZE.match(fields.get(name, "")):
            fields[f"{name}-1"], fields[f"{name}-2"] = match.groups()
    is_hires = not {"Hires upscaler", "Hires upscale", "Hires resize"}.isdisjoint(fields)
    if "Denoising strength" in fields and not is_hires:
        fields = {**UNSAID, **fields}
    body = _read(fields, FIELDS)
    if is_hires:
        body["enable_hr"] = True
    return {**body, "override_settings": _read(fields, SETTINGS)}


def unread(infotext: str) -> list[str]:
    """The fields that say something which has no effect here, such as the noise of other machines."""
    known = FIELDS.keys() | SETTINGS.keys() | SAID_ELSEWHERE
    return [
        name
        for name, value in parse(infotext).items()
        if name not in known and value not in USUAL.get(name, ())
    ]


def with_infotext(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """The body with what its ``infotext`` says wherever it has no value of its own.

    ``apply_infotext`` in modules/api/api.py of the WebUI.
    """
    written = text("infotext", document.get("infotext"))
    if not written:
        return document
    said = request_from(written)
    settings = document.get("override_settings") or {}
    if not isinstance(settings, dict):
        raise RequestFault(f"override_settings must be an object, not {shown(settings)}")
    return {**said, **document, "override_settings": {**said["override_settings"], **settings}}


def _read(fields: Mapping[str, str], names: Mapping[str, tuple[str, Read]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, (key, read) in names.items():
        if name not in fields:
            continue
        try:
            found[key] = read(fields[name])
        except (ValueError, KeyError):
            raise RequestFault(
                f"infotext says {name[:40]!r} is {shown(fields[name])}, which is no value of {key}"
            ) from None
    return found
