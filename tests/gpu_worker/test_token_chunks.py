"""Prompts cut into chunks of 75 tokens, as the WebUI cuts them."""

from dataclasses import dataclass

import pytest

from gpu_worker.errors import RequestFault
from gpu_worker.loading import tokenizer
from gpu_worker.token_chunks import CHUNK, MOST_CHUNKS, Special, Vocabulary, chunks, token_row, weight_row

WORD = 320  # "a"
COMMA = 267
PLAIN = Vocabulary(tokenizer())
CLIP = Special(49406, 49407, 49407)


@dataclass(frozen=True)
class Vectors:
    count: int


def lengths(prompt: str, vocabulary: Vocabulary = PLAIN) -> list[int]:
    return [len(chunk) for chunk in chunks(prompt, vocabulary)]


def test_a_short_prompt_is_one_chunk_that_padding_fills_up() -> None:
    [chunk] = chunks("a (cat:1.5)", PLAIN)
    row = token_row(chunk, CLIP)
    assert row[:5] == [49406, WORD, 2368, 49407, 49407]
    assert len(row) == len(weight_row(chunk)) == 77
    assert weight_row(chunk)[:4] == [1, 1, 1.5, 1]
    assert token_row(chunk, Special(49406, 49407, 0))[3:6] == [49407, 0, 0]


def test_an_empty_prompt_is_one_empty_chunk() -> None:
    assert lengths("") == [0]


def test_a_long_prompt_is_several_chunks() -> None:
    assert lengths("a " * 75) == [75]
    assert lengths("a " * 76) == [75, 1]
    assert lengths("a " * 200) == [75, 75, 50]


def test_a_full_chunk_ends_at_its_last_comma_when_that_is_near() -> None:
    assert lengths("a " * 65 + ", " + "a " * 20) == [66, 20]
    assert lengths("a " * 40 + ", " + "a " * 50) == [75, 16]
    # A comma that is the first too many stays where it is.
    assert lengths("a " * 75 + ", b") == [75, 2]


def test_break_begins_a_new_chunk() -> None:
    assert lengths("a a BREAK a") == [2, 1]
    assert lengths("a BREAK BREAK a") == [1, 0, 1]
    assert lengths("a " * 75 + "BREAK a") == [75, 1]


def test_an_embedding_takes_the_place_of_its_name_and_stays_in_one_chunk() -> None:
    name = tuple(PLAIN.ids(["my style"])[0])
    vocabulary = Vocabulary(tokenizer(), [(name, Vectors(8))])
    [chunk] = chunks("a (My Style:1.2) cat", vocabulary)
    assert [item.vector for item in chunk if item.embedding] == list(range(8))
    assert {item.weight for item in chunk if item.embedding} == {1.2}
    assert lengths("a " * 70 + "my style", vocabulary) == [70, 8]


def test_a_prompt_without_end_is_refused_with_the_limit() -> None:
    with pytest.raises(RequestFault, match=f"at most {MOST_CHUNKS * CHUNK} tokens"):
        chunks("a " * 9000, PLAIN)
    with pytest.raises(RequestFault, match="tokens"):
        chunks("BREAK " * 3000, PLAIN)
