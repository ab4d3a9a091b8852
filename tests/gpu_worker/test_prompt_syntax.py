"""Attention in prompts, as the WebUI reads it, and hostile brackets."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_worker.prompt_syntax import MOST_WEIGHT, Fragment, parse_attention

HOSTILE = [
    *("(" * 100_000, "[" * 100_000, ")" * 100_000, ":" * 100_000, "\\" * 100_001, " " * 100_000),
    *("(a" * 20_000, "(a:1.1" * 10_000 + ")" * 10_000, "(a" * 20_000 + ":1.1)" * 20_000, "[(" * 50_000),
    *("(" * 50_000 + "a" + ")" * 50_000, "BREAK" * 10_000, " BREAK " * 10_000, "(a:" + "9" * 50_000 + ")"),
]


def weights(prompt: str) -> list[tuple[str, float]]:
    return [(fragment.text, round(fragment.weight, 4)) for fragment in parse_attention(prompt)]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a cat", [("a cat", 1)]),
        ("", [("", 1)]),
        ("(a) b", [("a", 1.1), (" b", 1)]),
        ("[a] b", [("a", 0.9091), (" b", 1)]),
        ("(a:1.3), b", [("a", 1.3), (", b", 1)]),
        ("((a)) b", [("a", 1.21), (" b", 1)]),
        ("((a:2) b:3)", [("a", 6), (" b", 3)]),
        ("(a [b])", [("a ", 1.1), ("b", 1)]),
        (r"a \(b\) \[c\] \\", [(r"a (b) [c] \ "[:-1], 1)]),
        ("(a:-0.5)", [("a", -0.5)]),
        ("(a: 1.2 )", [("a", 1.2)]),
    ],
)
def test_brackets_weigh_what_they_weigh_in_the_webui(prompt: str, expected: list[tuple[str, float]]) -> None:
    assert weights(prompt) == expected


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("(a", [("a", 1.1)]),
        ("a)", [("a)", 1)]),
        ("[a", [("a", 0.9091)]),
        ("a:1.2", [("a:1.2", 1)]),
        ("(a:1.2.3)", [("a:1.2.3", 1.1)]),
        ("(a:x)", [("a:x", 1.1)]),
        ("(a [b) c]", [("a ", 1.1), ("b", 1), (" c", 0.9091)]),
    ],
)
def test_broken_brackets_are_read_as_far_as_they_go(prompt: str, expected: list[tuple[str, float]]) -> None:
    assert weights(prompt) == expected


def test_break_ends_a_chunk_in_brackets_too() -> None:
    assert parse_attention("a BREAK b") == [Fragment("a"), Fragment("", breaks=True), Fragment("b")]
    assert [f.breaks for f in parse_attention("(a BREAK b:1.2)")] == [False, True, False]
    assert parse_attention("BREAKFAST") == [Fragment("BREAKFAST")]


@pytest.mark.parametrize("prompt", HOSTILE, ids=lambda prompt: prompt[:6])
def test_hostile_brackets_take_time_that_grows_with_their_length_alone(prompt: str) -> None:
    started = time.process_time()
    found = parse_attention(prompt)
    # A quadratic reading of these takes minutes; a linear one a second.
    assert time.process_time() - started < 30
    assert all(abs(fragment.weight) <= MOST_WEIGHT for fragment in found)


@given(st.text(alphabet="ab ()[]:|\\.15BREAK", max_size=60))
def test_any_text_is_read(prompt: str) -> None:
    assert parse_attention(prompt)
