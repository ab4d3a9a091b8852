"""Writes and reads the WebUI's infotext, so that a picture tells how to make it again."""

import json
import re
from collections.abc import Callable

from gpu_worker import VERSION

NEGATIVE_MARK = "Negative prompt:"
# The expressions of modules/infotext_utils.py in the WebUI.
FIELD = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
MINIMUM_FIELDS = 3
SIZE = re.compile(r"^(\d+)x(\d+)$")


def quote(value: object) -> str:
    """A value as the WebUI writes it: as JSON text when it holds a comma, a colon or a line break."""
    written = str(value)
    return json.dumps(written, ensure_ascii=False) if re.search(r"[,:\n]", written) else written


def unquote(written: str) -> str:
    """The reverse of `quote`."""
    if len(written) < 2 or written[0] != '"' or written[-1] != '"':
        return written
    try:
        return str(json.loads(written))
    except ValueError:
        return written


def join(fields: dict[str, object]) -> str:
    """Fields as one line; those that are None are left out."""
    return ", ".join(f"{name}: {quote(value)}" for name, value in fields.items() if value is not None)


def write(prompt: str, negative_prompt: str, fields: dict[str, object]) -> str:
    """The infotext of one picture; fields that are None are left out, the version is added.

    Format: ``create_infotext`` in modules/processing.py of the WebUI.
    """
    shown = {**fields, "Version": f"sdfleet {VERSION}"}
    line = join(shown)
    negative = f"\n{NEGATIVE_MARK} {negative_prompt}" if negative_prompt else ""
    return f"{prompt}{negative}\n{line}".strip()


def parse(infotext: str) -> dict[str, str]:
    """Reads an infotext: its fields by name, both prompts among them, and ``Size`` also as two sides."""
    *lines, last = infotext.strip().split("\n")
    if len(FIELD.findall(last)) < MINIMUM_FIELDS:
        lines.append(last)
        last = ""
    prompt, negative = _split_prompts(lines)
    result = {"Prompt": prompt, "Negative prompt": negative}
    for name, written in FIELD.findall(last):
        value = unquote(written.strip())
        result[name] = value
        if name == "Size" and (match := SIZE.match(value)):
            result["Size-1"], result["Size-2"] = match.groups()
    return result


def _split_prompts(lines: list[str]) -> tuple[str, str]:
    prompt: list[str] = []
    negative: list[str] = []
    target = prompt
    for line in lines:
        if line.startswith(NEGATIVE_MARK):
            target = negative
            line = line.removeprefix(NEGATIVE_MARK).removeprefix(" ")
        target.append(line)
    return "\n".join(prompt), "\n".join(negative)


def request_from(infotext: str) -> dict[str, object]:
    """A request body that makes the infotext's picture again, with the names of ``/sdapi/v1/txt2img``."""
    fields = parse(infotext)
    settings: dict[str, object] = {}
    if "Model" in fields:
        settings["sd_model_checkpoint"] = fields["Model"]
    if "VAE" in fields:
        settings["sd_vae"] = fields["VAE"]
    if "Clip skip" in fields:
        settings["CLIP_stop_at_last_layers"] = int(fields["Clip skip"])
    return {
        **_hires(fields),
        "prompt": fields["Prompt"],
        "negative_prompt": fields["Negative prompt"],
        "steps": int(fields["Steps"]),
        "sampler_name": fields["Sampler"],
        "scheduler": fields.get("Schedule type", "Automatic"),
        "cfg_scale": float(fields["CFG scale"]),
        "seed": int(fields["Seed"]),
        "width": int(fields["Size-1"]),
        "height": int(fields["Size-2"]),
        "eta": float(fields.get("Eta", 0.0)),
        "override_settings": settings,
    }


def _hires(fields: dict[str, str]) -> dict[str, object]:
    """What an infotext says of hires fix, with the names of requests."""
    if "Hires upscaler" not in fields:
        return {}
    names: dict[str, tuple[str, Callable[[str], object]]] = {
        "Denoising strength": ("denoising_strength", float),
        "Hires upscale": ("hr_scale", float),
        "Hires steps": ("hr_second_pass_steps", int),
        "Hires upscaler": ("hr_upscaler", str),
        "Hires sampler": ("hr_sampler_name", str),
        "Hires schedule type": ("hr_scheduler", str),
        "Hires CFG scale": ("hr_cfg", float),
        "Hires prompt": ("hr_prompt", str),
        "Hires negative prompt": ("hr_negative_prompt", str),
    }
    found = {key: read(fields[name]) for name, (key, read) in names.items() if name in fields}
    if match := SIZE.match(fields.get("Hires resize", "")):
        found |= {"hr_resize_x": int(match[1]), "hr_resize_y": int(match[2])}
    return {"enable_hr": True, **found}
