"""The values of an axis as the WebUI's X/Y/Z plot reads them: lists, ranges and counts."""

import csv
import re
from itertools import permutations

import numpy as np

from gpu_worker.errors import RequestFault

NUMBER = r"([+-]?\s*\d+(?:\.\d*)?)"
# "1-5", "1-5 (+2)" and "0-1 [5]": the regular expressions re_range… of scripts/xyz_grid.py of the WebUI.
RANGE = re.compile(rf"\s*{NUMBER}\s*-\s*{NUMBER}(?:\s*\(([+-]\d+(?:\.\d*)?)\s*\))?\s*")
COUNT = re.compile(rf"\s*{NUMBER}\s*-\s*{NUMBER}\s*\[(\d+)\s*\]\s*")
MOST_VALUES = 64
MOST_TOKENS = 6


def split(text: str) -> list[str]:
    """The entries of one line of comma-separated values; quotes hold entries with commas together."""
    rows = list(csv.reader([text.replace("\n", ",")], skipinitialspace=True))
    return [entry.strip() for row in rows for entry in row if entry.strip()]


def whole_numbers(called: str, entries: list[str]) -> list[int]:
    """Whole numbers; ``1-5 (+2)`` is 1, 3, 5 and ``1-10 [4]`` is 1, 4, 7, 10."""
    found = _numbers(called, entries, "a whole number or a range of them")
    return [int(number) for number in found]


def numbers(called: str, entries: list[str]) -> list[float]:
    """Numbers; ``0-1 (+0.25)`` and ``0-1 [5]`` are ranges."""
    return [round(number, 6) for number in _numbers(called, entries, "a number or a range of them")]


def orders(called: str, entries: list[str]) -> list[tuple[str, ...]]:
    """Every order of the entries."""
    if len(entries) > MOST_TOKENS:
        raise RequestFault(f"{called} has {len(entries)} words to put in order: at most {MOST_TOKENS}")
    return list(permutations(entries))


def _numbers(called: str, entries: list[str], wanted: str) -> list[float]:
    found: list[float] = []
    for entry in entries:
        found += _expanded(entry, called, wanted)
        if len(found) > MOST_VALUES:
            raise RequestFault(f"{called} has more than {MOST_VALUES} values")
    return found


def _expanded(entry: str, called: str, wanted: str) -> list[float]:
    if match := COUNT.fullmatch(entry):
        start, end = (_read(part) for part in match.group(1, 2))
        return [float(value) for value in np.linspace(start, end, min(int(match[3]), MOST_VALUES + 1))]
    if match := RANGE.fullmatch(entry):
        start, end = (_read(part) for part in match.group(1, 2))
        stride = _read(match[3]) if match[3] else 1.0 if end >= start else -1.0
        if stride == 0 or (end - start) / stride < 0:
            raise RequestFault(f"{called}: {entry[:40]!r} never reaches its end")
        count = min(int((end - start) / stride + 1e-6) + 1, MOST_VALUES + 1)
        return [start + stride * step for step in range(count)]
    try:
        value = float(entry)
    except ValueError:
        raise RequestFault(f"{called}: {entry[:40]!r} is not {wanted}") from None
    if not np.isfinite(value) or abs(value) > 2**53:
        raise RequestFault(f"{called}: {entry[:40]!r} is not {wanted}")
    return [value]


def _read(text: str) -> float:
    return float(text.replace(" ", ""))
