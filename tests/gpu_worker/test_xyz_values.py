"""Values of the X/Y/Z plot as artists write them."""

import pytest

from gpu_worker import xyz_values
from gpu_worker.errors import RequestFault


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1, 2,3", [1, 2, 3]),
        ("1-5", [1, 2, 3, 4, 5]),
        ("1-5 (+2)", [1, 3, 5]),
        ("10-5 (-3)", [10, 7]),
        ("1-10 [4]", [1, 4, 7, 10]),
        ("-3 - -1", [-3, -2, -1]),
        ("7, 1-3", [7, 1, 2, 3]),
    ],
)
def test_values_are_read_as_the_webui_does(text: str, values: list[int]) -> None:
    assert xyz_values.whole_numbers("x", xyz_values.split(text)) == values


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("0.5, 7", [0.5, 7.0]),
        ("0-1 (+0.25)", [0.0, 0.25, 0.5, 0.75, 1.0]),
        ("0-1 [3]", [0.0, 0.5, 1.0]),
        ("0.1-0.3 (+0.1)", [0.1, 0.2, 0.3]),
    ],
)
def test_ranges_of_numbers_reach_their_end(text: str, values: list[float]) -> None:
    assert xyz_values.numbers("x", xyz_values.split(text)) == pytest.approx(values)


def test_quotes_hold_texts_with_commas_together() -> None:
    assert xyz_values.split('red, "a, b", blue') == ["red", "a, b", "blue"]


def test_orders_are_all_of_them() -> None:
    assert len(xyz_values.orders("x", ["a", "b", "c"])) == 6
    with pytest.raises(RequestFault, match="has 7 words to put in order: at most 6"):
        xyz_values.orders("x", list("abcdefg"))


@pytest.mark.parametrize("text", ["x", "1e400", "5-1 (+1)", "1-5 (+0)", "nan"])
def test_what_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(RequestFault, match=r"^x: "):
        xyz_values.whole_numbers("x", xyz_values.split(text))


def test_a_range_is_not_counted_to_its_end_when_it_is_too_long() -> None:
    with pytest.raises(RequestFault, match="more than 64 values"):
        xyz_values.whole_numbers("x", ["1-999999999999"])
    with pytest.raises(RequestFault, match="more than 64 values"):
        xyz_values.numbers("x", ["0-1 [999999999]"])
