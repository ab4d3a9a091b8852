"""Extra networks named in prompts: ``<lora:name:1>``, ``<lyco:…>``, ``<hypernet:name:0.5>``.

Meaning: modules/extra_networks.py and extensions-builtin/Lora/extra_networks_lora.py of the WebUI: the first
number of a LoRA is the text encoders' weight, the second the UNet's, which is the first's when it is absent.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from gpu_worker.errors import RequestFault

TAG = re.compile(r"<(\w{1,40}):([^<>]{1,500})>")
LORA, HYPERNETWORK = "lora", "hypernet"
KINDS = {"lora": LORA, "lyco": LORA, "hypernet": HYPERNETWORK}
MOST_TAGS = 32
MOST_WEIGHT = 100.0
MOST_RANK = 100_000
NAMED = frozenset({"te", "unet", "dyn"})


@dataclass(frozen=True, slots=True)
class Tag:
    """A network that a prompt asks for, as the prompt writes it, with its weights."""

    kind: str
    name: str
    text: float = 1.0
    unet: float = 1.0
    rank: int = 0


def split_tags(prompt: str) -> tuple[str, list[Tag], list[str]]:
    """The prompt without its tags; what they ask for; tags of kinds that do not exist, which have no effect.

    Raises `RequestFault` for weights that are no numbers and for too many tags.
    """
    tags: list[Tag] = []
    ignored: list[str] = []

    def take(match: re.Match[str]) -> str:
        kind = KINDS.get(match[1].lower())
        if kind is None:
            ignored.append(match[0][:80])
        else:
            tags.append(_tag(kind, match[0], match[2].split(":")))
        return ""

    text = TAG.sub(take, prompt)
    if len(tags) > MOST_TAGS:
        raise RequestFault(f"a prompt may name at most {MOST_TAGS} networks, this one names {len(tags)}")
    return text, tags, ignored


def _tag(kind: str, written: str, items: list[str]) -> Tag:
    positional = [item for item in items if "=" not in item]
    named = dict(item.split("=", 1) for item in items if "=" in item)
    if not positional or not positional[0].strip():
        raise RequestFault(f"{written[:80]} in the prompt names no file")
    name, *numbers = (item.strip() for item in positional)
    if len(numbers) > 3 or not named.keys() <= NAMED:
        raise RequestFault(f"{written[:80]} in the prompt says more than <{kind}:name:weight> may")
    numbers += [""] * (3 - len(numbers))
    text = _number(named.get("te", numbers[0]), 1.0, written)
    unet = _number(named.get("unet", numbers[1]), text, written)
    rank = _rank(named, numbers[2], written)
    return Tag(kind, name, text, unet if kind == LORA else text, rank)


def _rank(named: Mapping[str, str], positional: str, written: str) -> int:
    rank = _number(named.get("dyn", positional), 0.0, written, MOST_RANK)
    if rank < 0 or rank != int(rank):
        raise RequestFault(f"{written[:80]} in the prompt: the number of dimensions must be a whole number")
    return int(rank)


def _number(item: str, default: float, written: str, most: float = MOST_WEIGHT) -> float:
    if not item:
        return default
    try:
        value = float(item) if len(item) < 40 else math.nan
    except ValueError:
        value = math.nan
    if not abs(value) <= most:
        raise RequestFault(f"{written[:80]} in the prompt: {item[:40]!r} must be a number up to {most:g}")
    return value
