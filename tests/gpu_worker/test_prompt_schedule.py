"""Prompts that are composed and that change on the way."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_worker.errors import RequestFault
from gpu_worker.prompt_schedule import Pass, schedule, split_and

TWENTY = Pass(20)
HOSTILE = [
    *("[a:" * 6000, "[a|" * 6000 + "b" + "]" * 6000, "[a:b:1]" * 3000, "[" * 20_000, "(" * 20_000),
    *("[(" * 10_000, "])" * 10_000, ":" * 20_000, "|" * 20_000, "[a:b:" + "9" * 19_000 + "]", "[a|b]" * 4000),
]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a cat", [(20, "a cat")]),
        ("a [cat:dog:0.5]", [(10, "a cat"), (20, "a dog")]),
        ("a [cat:dog:12]", [(12, "a cat"), (20, "a dog")]),
        ("a [cat::0.25]", [(5, "a cat"), (20, "a ")]),
        ("a [:dog:0.25]", [(5, "a "), (20, "a dog")]),
        ("a [dog:5]", [(5, "a "), (20, "a dog")]),
        ("[a:b:0]", [(20, "b")]),
        ("[a:b:99]", [(20, "a")]),
        ("[[a:b:3]:c:0.5]", [(3, "a"), (10, "b"), (20, "c")]),
        ("[a:[b:c:15]:0.5]", [(10, "a"), (15, "b"), (20, "c")]),
        ("([a:b:0.5]:1.3)", [(10, "(a:1.3)"), (20, "(b:1.3)")]),
        ("[(a:1.2):(b:1.3):0.5]", [(10, "(a:1.2)"), (20, "(b:1.3)")]),
    ],
)
def test_words_change_after_the_step_that_is_named(prompt: str, expected: list[tuple[int, str]]) -> None:
    assert schedule(prompt, TWENTY) == expected


def test_words_take_turns() -> None:
    assert schedule("a [b|c] d", Pass(4)) == [(1, "a b d"), (2, "a c d"), (3, "a b d"), (4, "a c d")]
    assert [text for _, text in schedule("[a|[b|c]]", Pass(4))] == ["a", "c", "a", "c"]
    assert [text for _, text in schedule("[a||b]", Pass(3))] == ["a", "", "b"]


PLAIN = ["[a:b]", "[a:b:c]", "[[a", "a]", "a|b", "[a:b:0.5", "(a:b:0.5)", r"\[a:b:3\]"]


@pytest.mark.parametrize("prompt", PLAIN)
def test_what_is_no_schedule_stays_as_it_is(prompt: str) -> None:
    assert schedule(prompt, TWENTY) == [(20, prompt)]


def test_in_the_second_pass_of_hires_schedules_count_on() -> None:
    second = Pass(10, before=20)
    assert schedule("[a:b:0.5]", second) == [(10, "b")]
    assert schedule("[a:b:1.5]", second) == [(5, "a"), (10, "b")]
    assert schedule("[a:b:12]", second) == [(10, "b")]
    assert schedule("[a:b:24]", second) == [(4, "a"), (10, "b")]


def test_and_joins_prompts_with_their_weights() -> None:
    assert split_and("a cat") == [("a cat", 1.0)]
    assert split_and("a AND b :1.5 AND c:-0.5") == [("a ", 1.0), (" b ", 1.5), (" c", -0.5)]
    assert split_and("SAND and RANDOM") == [("SAND and RANDOM", 1.0)]
    assert split_and("(a:1.2)") == [("(a:1.2)", 1.0)]


def test_too_many_prompts_are_refused_with_the_limit() -> None:
    with pytest.raises(RequestFault, match="at most 16 others with AND, not 31"):
        split_and(" AND ".join(["a"] * 31))


@pytest.mark.parametrize("prompt", HOSTILE, ids=lambda prompt: prompt[:6])
def test_hostile_brackets_take_time_that_grows_with_their_length_alone(prompt: str) -> None:
    started = time.process_time()
    found = schedule(prompt, Pass(150))
    assert time.process_time() - started < 30
    assert len(found) <= 150


@given(st.text(alphabet="ab ()[]:|\\.15", max_size=60), st.integers(1, 30), st.sampled_from([0, 20]))
def test_any_text_has_a_text_for_every_step(prompt: str, steps: int, before: int) -> None:
    found = schedule(prompt, Pass(steps, before))
    ends = [end for end, _ in found]
    assert ends == sorted(set(ends))
    assert ends[-1] == steps
