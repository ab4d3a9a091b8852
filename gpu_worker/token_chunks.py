"""Cuts a prompt into chunks of 75 tokens with their weights, as the WebUI does.

Meaning: ``tokenize_line`` in modules/sd_hijack_clip.py of the WebUI. ``BREAK`` begins a new chunk; a chunk
that is full ends at its last comma when that is at most 20 tokens back (``comma_padding_backtrack``); the
vectors of an embedding stay in one chunk.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from gpu_worker.errors import RequestFault
from gpu_worker.prompt_syntax import parse_attention

CHUNK = 75
BACKTRACK = 20
MOST_CHUNKS = 40
# An embedding's vectors take the place of this token.
PLACEHOLDER = 0


class Embedded(Protocol):
    """What takes the place of words: `count` vectors for each text encoder."""

    @property
    def count(self) -> int:
        """How many tokens it is worth."""


@dataclass(frozen=True, slots=True)
class Item:
    """A token with its weight, or the place of an embedding's `vector`-th vector."""

    token: int
    weight: float
    embedding: Any = None
    vector: int = 0


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """A tokenizer, and embeddings by the tokens of their names."""

    tokenizer: Any
    embeddings: Sequence[tuple[tuple[int, ...], Embedded]] = ()

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of each text."""
        ids: list[list[int]] = self.tokenizer(list(texts), add_special_tokens=False, verbose=False).input_ids
        return ids

    def embedding_at(self, ids: Sequence[int], place: int) -> tuple[Embedded | None, int]:
        """The embedding whose name begins here, the longest name first, and the name's tokens."""
        for name, embedding in self.embeddings:
            if tuple(ids[place : place + len(name)]) == name:
                return embedding, len(name)
        return None, 1


@dataclass(slots=True)
class _Filling:
    comma: int | None
    chunks: list[list[Item]] = field(default_factory=list)
    now: list[Item] = field(default_factory=list)
    last_comma: int | None = None

    def end_chunk(self) -> None:
        self.chunks.append(self.now)
        self.now, self.last_comma = [], None
        if len(self.chunks) > MOST_CHUNKS:
            raise RequestFault(f"a prompt may have at most {MOST_CHUNKS * CHUNK} tokens, this one has more")

    def add(self, item: Item) -> None:
        if item.token == self.comma and item.embedding is None:
            self.last_comma = len(self.now)
        elif len(self.now) == CHUNK and self.last_comma is not None and CHUNK - self.last_comma <= BACKTRACK:
            moved = self.now[self.last_comma + 1 :]
            del self.now[self.last_comma + 1 :]
            self.end_chunk()
            self.now = moved
        if len(self.now) == CHUNK:
            comma_now = item.token == self.comma and item.embedding is None
            self.end_chunk()
            self.last_comma = 0 if comma_now else None
        self.now.append(item)

    def add_embedding(self, embedding: Embedded, weight: float) -> None:
        if len(self.now) + embedding.count > CHUNK:
            self.end_chunk()
        self.now += [Item(PLACEHOLDER, weight, embedding, n) for n in range(embedding.count)]


def chunks(prompt: str, vocabulary: Vocabulary) -> list[list[Item]]:
    """The chunks of a prompt, each at most 75 items long; at least one, which may be empty.

    Raises `RequestFault` when they are too many.
    """
    fragments = parse_attention(prompt)
    comma = vocabulary.ids([","])[0]
    filling = _Filling(comma[0] if len(comma) == 1 else None)
    tokenized = vocabulary.ids([fragment.text for fragment in fragments])
    for fragment, ids in zip(fragments, tokenized, strict=True):
        if fragment.breaks:
            filling.end_chunk()
        place = 0
        while place < len(ids):
            embedding, length = vocabulary.embedding_at(ids, place)
            if embedding is None:
                filling.add(Item(ids[place], fragment.weight))
            else:
                filling.add_embedding(embedding, fragment.weight)
            place += length
    if filling.now or not filling.chunks:
        filling.end_chunk()
    return filling.chunks


@dataclass(frozen=True, slots=True)
class Special:
    """The tokens that begin and end a chunk, and the one that fills it up."""

    start: int
    end: int
    pad: int


def token_row(chunk: Sequence[Item], special: Special) -> list[int]:
    """The chunk as the 77 tokens that a text encoder reads: the first end token is followed by padding."""
    missing = CHUNK - len(chunk)
    return [special.start, *(item.token for item in chunk), special.end] + [special.pad] * missing


def weight_row(chunk: Sequence[Item]) -> list[float]:
    """The weights of the 77 tokens."""
    return [1.0, *(item.weight for item in chunk), 1.0] + [1.0] * (CHUNK - len(chunk))


def vectors_of(chunk: Sequence[Item], pick: Any) -> dict[int, Tensor]:
    """The vectors that replace tokens' own, by their place in the row; `pick` gives those of an embedding."""
    return {
        place + 1: pick(item.embedding)[item.vector]
        for place, item in enumerate(chunk)
        if item.embedding is not None
    }
