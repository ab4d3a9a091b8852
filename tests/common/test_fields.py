"""The sentences that clients match on."""

from typing import Any

import pytest
from marshmallow import ValidationError

from services.common.fields import Body, Flag, Items, Object, Part, Text, Whole


class Inner(Body):
    name = Text(required=True)


class Shape(Body):
    word = Text(min_length=1, max_length=5, choices=None)
    choice = Text(choices=("a", "b"))
    count = Whole(minimum=1, maximum=9)
    flag = Flag()
    items = Items(Part(Inner()), min_items=1, max_items=2)
    anything = Object()


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (
            {"word": 1},
            'instance type (integer) does not match any allowed primitive type (allowed: ["string"])',
        ),
        (
            {"word": None},
            'instance type (null) does not match any allowed primitive type (allowed: ["string"])',
        ),
        ({"word": ""}, 'string "" is too short (length: 0, required minimum: 1)'),
        ({"word": "abcdef"}, 'string "abcdef" is too long (length: 6, maximum allowed: 5)'),
        ({"choice": "x"}, 'instance value ("x") not found in enum (possible values: ["a","b"])'),
        (
            {"count": "x"},
            'instance type (string) does not match any allowed primitive type (allowed: ["integer"])',
        ),
        (
            {"count": True},
            'instance type (boolean) does not match any allowed primitive type (allowed: ["integer"])',
        ),
        (
            {"count": 1.5},
            'instance type (number) does not match any allowed primitive type (allowed: ["integer"])',
        ),
        ({"count": 0}, "numeric instance is lower than the required minimum (minimum: 1, found: 0)"),
        ({"count": 10}, "numeric instance is greater than the required maximum (maximum: 9, found: 10)"),
        (
            {"flag": 1},
            'instance type (integer) does not match any allowed primitive type (allowed: ["boolean"])',
        ),
        ({"items": []}, "array is too short: must have at least 1 elements but instance has 0 elements"),
        (
            {"items": {}},
            'instance type (object) does not match any allowed primitive type (allowed: ["array"])',
        ),
        (
            {"anything": []},
            'instance type (array) does not match any allowed primitive type (allowed: ["object"])',
        ),
    ],
)
def test_every_problem_has_its_sentence(value: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError) as failure:
        Shape().load(value)
    (problems,) = failure.value.normalized_messages().values()
    assert problems == [sentence]


def test_numbers_and_flags_may_be_text() -> None:
    assert Shape().load({"count": "3", "flag": "true"}) == {"count": 3, "flag": True}


@pytest.mark.parametrize("count", ["1e3", "٣", "9" * 400, "", " ", float("inf"), float("nan")])
def test_odd_numbers_are_no_numbers(count: Any) -> None:
    with pytest.raises(ValidationError):
        Shape().load({"count": count})


def test_unknown_fields_are_ignored() -> None:
    assert Shape().load({"word": "a", "other": 1}) == {"word": "a"}
