"""Prompts that are composed (``AND``) and that change on the way (``[a:b:0.5]``, ``[a|b]``).

Meaning: ``get_learned_conditioning_prompt_schedules`` and ``get_multicond_prompt_list`` in
modules/prompt_parser.py of the WebUI. What is no schedule stays as it is, brackets too: attention reads them.
Time and memory grow with the length of the text and the number of steps alone.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from gpu_worker.errors import RequestFault
from gpu_worker.prompt_syntax import NUMBER

AND = re.compile(r"\bAND\b")
WEIGHT = re.compile(NUMBER)
WHEN = re.compile(rf"{NUMBER}(?:e[-+]?\d{{1,2}})?", re.IGNORECASE)
TOKEN = re.compile(r"\\.|[\[\]():|]|[^\\\[\]():|]+|\\", re.DOTALL)
MOST_PARTS = 16
DEEPEST = 24


@dataclass(frozen=True, slots=True)
class Pass:
    """The steps that a prompt is scheduled over: those of this pass, and of the passes before it.

    In the second pass of hires fix (`before` > 0) whole numbers count from the first pass's beginning, and
    fractions from 1 on are the second pass's.
    """

    steps: int
    before: int = 0

    def end(self, written: str) -> int:
        """After how many steps of this pass what a schedule says is due; below 1 it is so from the start."""
        value = float(written)
        if "." in written:
            value = (value - (1.0 if self.before else 0.0)) * self.steps
        else:
            value -= self.before
        return int(max(-1.0, min(float(self.steps), value)))


def split_and(prompt: str) -> list[tuple[str, float]]:
    """The prompts joined by ``AND`` with their weights; raises `RequestFault` when they are too many."""
    parts = AND.split(prompt)
    if len(parts) > MOST_PARTS:
        raise RequestFault(f"a prompt may join at most {MOST_PARTS} others with AND, not {len(parts)}")
    return [_weighted(part) for part in parts]


def _weighted(part: str) -> tuple[str, float]:
    text, colon, weight = part.rpartition(":")
    if colon and (match := WEIGHT.fullmatch(weight.strip())):
        return text, float(match[0])
    return part, 1.0


def schedule(prompt: str, over: Pass) -> list[tuple[int, str]]:
    """Texts with the step up to which each holds, in rising order.

    As in the WebUI the step that a schedule names still has the earlier text, counted from 0; the last text
    holds to the end.
    """
    tree = _Parser(prompt).tree()
    ends = sorted({over.steps, *_changes(tree, over)})
    texts = [(end, "".join(_at(tree, end, over))) for end in ends]
    kept = [now for now, later in pairwise(texts) if now[1] != later[1]]
    return [*kept, texts[-1]]


@dataclass(slots=True)
class _Sequence:
    """Text and choices, one after the other."""

    items: list["str | _Scheduled | _Alternate"] = field(default_factory=list)


@dataclass(slots=True)
class _Scheduled:
    before: _Sequence
    after: _Sequence
    when: str


@dataclass(slots=True)
class _Alternate:
    options: list[_Sequence]


class _Parser:
    """Reads a prompt with brackets matched beforehand: those without a partner are text."""

    def __init__(self, prompt: str) -> None:
        self._tokens = TOKEN.findall(prompt)
        self._partner = _partners(self._tokens)

    def tree(self) -> _Sequence:
        """The whole prompt."""
        return self._sequence(0, len(self._tokens), 0)

    def _sequence(self, start: int, end: int, depth: int) -> _Sequence:
        found = _Sequence()
        text: list[str] = []
        place = start
        while place < end:
            close = self._partner.get(place)
            if self._tokens[place] == "[" and close is not None and depth < DEEPEST:
                choice = self._choice(place + 1, close, depth + 1)
                if choice is not None:
                    found.items += ["".join(text), choice]
                    text = []
                    place = close + 1
                    continue
            text.append(self._tokens[place])
            place += 1
        found.items.append("".join(text))
        return found

    def _choice(self, start: int, end: int, depth: int) -> _Scheduled | _Alternate | None:
        """What a pair of square brackets says, or None when it is attention."""
        cuts = self._separators(start, end)
        kinds = {self._tokens[cut] for cut in cuts}
        spans = [(a + 1, b) for a, b in pairwise([start - 1, *cuts, end])]
        if kinds == {"|"}:
            return _Alternate([self._sequence(a, b, depth) for a, b in spans])
        when = "".join(self._tokens[slice(*spans[-1])]).strip()
        if kinds != {":"} or len(spans) > 3 or not WHEN.fullmatch(when):
            return None
        before, after = [(start, start), *spans[:-1]][-2:]
        return _Scheduled(self._sequence(*before, depth), self._sequence(*after, depth), when)

    def _separators(self, start: int, end: int) -> list[int]:
        """Where ``:`` and ``|`` stand in brackets but in none inside them."""
        found = []
        place = start
        while place < end:
            if self._tokens[place] in (":", "|"):
                found.append(place)
            place = self._partner.get(place, place) + 1
        return found


def _partners(tokens: Sequence[str]) -> dict[int, int]:
    """The closing bracket of each opening one; what is still open inside a pair has none."""
    found: dict[int, int] = {}
    opened: list[int] = []
    counts = {"(": 0, "[": 0}
    for place, sign in enumerate(tokens):
        if sign in counts:
            opened.append(place)
            counts[sign] += 1
        elif sign in (")", "]"):
            wanted = "(" if sign == ")" else "["
            while counts[wanted] and opened:
                last = opened.pop()
                counts[tokens[last]] -= 1
                if tokens[last] == wanted:
                    found[last] = place
                    break
    return found


def _changes(tree: _Sequence, over: Pass) -> Iterator[int]:
    """The steps after which some text changes."""
    for item in tree.items:
        if isinstance(item, _Scheduled):
            if (end := over.end(item.when)) >= 1:
                yield end
            yield from _changes(item.before, over)
            yield from _changes(item.after, over)
        elif isinstance(item, _Alternate):
            yield from range(1, over.steps + 1)
            for option in item.options:
                yield from _changes(option, over)


def _at(tree: _Sequence, step: int, over: Pass) -> Iterator[str]:
    """The text of a step, counted from 1."""
    for item in tree.items:
        if isinstance(item, str):
            yield item
        elif isinstance(item, _Scheduled):
            yield from _at(item.before if step <= over.end(item.when) else item.after, step, over)
        else:
            yield from _at(item.options[(step - 1) % len(item.options)], step, over)
