"""The WebUI's styles: texts that a request adds to its prompts by name, defined by whoever runs the worker.

File: ``styles.csv`` of the WebUI with the columns name, prompt, negative_prompt; modules/styles.py there says
how they are put together.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpu_worker.errors import RequestFault
from gpu_worker.limits import MAX_NAME_LENGTH, MAX_TEXT_LENGTH, shown

PLACE = "{prompt}"
MOST_STYLES = 50
NONE = "None"


@dataclass(frozen=True, slots=True)
class Style:
    """What a style adds to both prompts; ``{prompt}`` is where the request's own goes."""

    prompt: str
    negative_prompt: str


@dataclass(frozen=True, slots=True)
class Styles:
    """The styles that there are."""

    by_name: Mapping[str, Style] = field(default_factory=dict)

    @classmethod
    def from_file(cls, path: Path) -> "Styles":
        """Reads a styles.csv; raises OSError, or ValueError for what is none."""
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            if not {"name", "prompt"} <= set(rows.fieldnames or ()):
                raise ValueError("its first line must name the columns name, prompt and negative_prompt")
            found = {}
            for row in rows:
                # The WebUI's first files said "text" for the prompt; names in quotes may be dividers.
                if row["name"] and (row["prompt"] or row.get("negative_prompt")):
                    found[row["name"]] = Style(row["prompt"] or "", row.get("negative_prompt") or "")
            return cls(found)

    def missing(self, names: Sequence[str]) -> list[str]:
        """Those that are not defined here."""
        return [name for name in names if name not in self.by_name]

    def apply(self, prompt: str, negative_prompt: str, names: Sequence[str]) -> tuple[str, str]:
        """Both prompts with these styles, one after the other; unknown ones add nothing."""
        chosen = [self.by_name[name] for name in names if name in self.by_name]
        for style in chosen:
            prompt = _merged(style.prompt, prompt)
            negative_prompt = _merged(style.negative_prompt, negative_prompt)
            # After each: styles that repeat the prompt double it every time.
            if max(len(prompt), len(negative_prompt)) > MAX_TEXT_LENGTH:
                raise RequestFault(
                    f"with its styles a prompt has more than {MAX_TEXT_LENGTH} characters, which is the most"
                )
        return prompt, negative_prompt


NO_STYLES = Styles()


def style_names(value: Any) -> tuple[str, ...]:
    """``styles`` of a request: a list of names; raises `RequestFault` for anything else."""
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise RequestFault(f"styles must be a list of names, not {shown(value)}")
    names = tuple(name for name in value if name not in ("", NONE))
    if len(names) > MOST_STYLES or any(len(name) > MAX_NAME_LENGTH for name in names):
        raise RequestFault(f"styles may name at most {MOST_STYLES} styles of {MAX_NAME_LENGTH} characters")
    return names


def _merged(style: str, prompt: str) -> str:
    if PLACE in style:
        return style.replace(PLACE, prompt)
    parts = [part for part in (prompt.strip(), style.strip()) if part]
    return ", ".join(parts)
