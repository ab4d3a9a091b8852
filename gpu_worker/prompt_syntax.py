"""Attention in prompts: which words weigh how much, and where a chunk of tokens ends.

Meaning: ``parse_prompt_attention`` in modules/prompt_parser.py of the WebUI. ``(a)`` weighs 1.1 times,
``[a]`` 1.1 times less, ``(a:1.3)`` 1.3 times; they multiply; a bracket that is not closed lasts to the end;
``\\(`` is a bracket that is meant. Time and memory grow with the text's length alone.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

MORE = 1.1
LESS = 1 / 1.1
MOST_WEIGHT = 100.0
NUMBER = r"[+-]?(?:\d{1,30}\.?\d{0,30}|\.\d{1,30})"
PIECE = re.compile(rf"\\[()\[\]\\]|\\|\(|\[|:\s{{0,9}}({NUMBER})\s{{0,9}}\)|\)|]|[^\\()\[\]:]+|:")
BREAK = re.compile(r"\bBREAK\b")
OPENED = {"(": ")", "[": "]"}


@dataclass(frozen=True, slots=True)
class Fragment:
    """Words of one weight; `breaks` says that a new chunk of tokens begins after them."""

    text: str
    weight: float = 1.0
    breaks: bool = False


def parse_attention(prompt: str) -> list[Fragment]:
    """The prompt's words with their weights, neighbours of equal weight in one piece."""
    pieces, spans = _read(prompt)
    found: list[Fragment] = []
    text: list[str] = []
    weights = list(_weights(spans, len(pieces)))
    for place, piece in enumerate(pieces):
        if piece is not None:
            text.append(piece)
        ends = place + 1 == len(pieces) or pieces[place + 1] is None or weights[place + 1] != weights[place]
        if piece is None:
            found.append(Fragment("", breaks=True))
        elif ends:
            found.append(Fragment("".join(text), weights[place]))
            text = []
    return found or [Fragment("")]


# Where a bracket's effect begins, where it ends, and how much it multiplies.
_Span = tuple[int, int, float]


def _read(prompt: str) -> tuple[list[str | None], dict[str, list[_Span]]]:
    """Pieces of plain text (None: BREAK) and the spans of both kinds of brackets."""
    pieces: list[str | None] = []
    opened: dict[str, list[int]] = {"(": [], "[": []}
    spans: dict[str, list[_Span]] = {"(": [], "[": []}
    for match in PIECE.finditer(prompt):
        piece = match[0]
        if len(piece) == 2 and piece[0] == "\\":
            pieces.append(piece[1])
        elif piece in OPENED:
            opened[piece].append(len(pieces))
        elif match[1] and opened["("]:
            spans["("].append((opened["("].pop(), len(pieces), float(match[1])))
        elif piece == ")" and opened["("]:
            spans["("].append((opened["("].pop(), len(pieces), MORE))
        elif piece == "]" and opened["["]:
            spans["["].append((opened["["].pop(), len(pieces), LESS))
        else:
            pieces += _split_breaks(piece)
    for kind, usual in (("(", MORE), ("[", LESS)):
        spans[kind] += [(start, len(pieces), usual) for start in opened[kind]]
    return pieces, spans


def _split_breaks(piece: str) -> Iterator[str | None]:
    """The text between the words BREAK, without the white space around them."""
    first, *others = BREAK.split(piece)
    yield first.rstrip() if others else first
    for number, other in enumerate(others):
        yield None
        yield other.strip() if number + 1 < len(others) else other.lstrip()


def _weights(spans: dict[str, list[_Span]], count: int) -> Iterator[float]:
    """The weight of every piece; brackets of one kind never overlap halfway, so a stack suffices for each."""
    levels = [_products(spans[kind], count) for kind in ("(", "[")]
    for round_weight, square_weight in zip(*levels, strict=True):
        yield max(-MOST_WEIGHT, min(MOST_WEIGHT, round_weight * square_weight))


def _products(spans: Sequence[_Span], count: int) -> Iterator[float]:
    waiting = sorted(spans, key=lambda span: (-span[0], span[1]))  # the next to open is the last
    active: list[tuple[int, float]] = []
    for place in range(count):
        while active and active[-1][0] <= place:
            active.pop()
        while waiting and waiting[-1][0] <= place:
            start, end, weight = waiting.pop()
            if end > start:
                active.append((end, weight * (active[-1][1] if active else 1.0)))
        # Brackets without end may multiply beyond what a float holds.
        yield max(-1e30, min(1e30, active[-1][1])) if active else 1.0
