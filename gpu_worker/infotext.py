"""Writes and reads the WebUI's infotext, so that a picture tells how to make it again."""

import json
import re

from gpu_worker import VERSION

NEGATIVE_MARK = "Negative prompt:"
# The expressions of modules/infotext_utils.py in the WebUI.
FIELD = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
MINIMUM_FIELDS = 3
SIZE = re.compile(r"^(\d+)x(\d+)$")


def exact(value: float) -> str:
    """A number in as few digits as give it back: 7.0 is "7", as in the WebUI."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


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
