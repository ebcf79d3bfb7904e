from __future__ import annotations

import math
import sys
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mira_megatron.eval.grouped_calls import Unserialisable
from mira_megatron.eval.mbpp_oracles import expected_value, is_made_of_floats, is_right

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.tuples(inner, inner),
    max_leaves=8,
)


def right(entry_point: str, expected: Any, value: Any, *arguments: Any, atol: float = 0) -> bool:
    return is_right(entry_point, arguments, expected, value, atol)


@given(PLAIN)
def test_a_value_answers_itself(value: Any) -> None:
    assert right("f", value, value)


@given(PLAIN)
def test_something_that_is_no_data_answers_nothing(value: Any) -> None:
    assert not right("f", value, Unserialisable("re.Match"))


@pytest.mark.parametrize(
    ("expected", "value", "is_so"),
    [
        (1.0, 1.0 + 5e-7, True),  # floats are never compared more closely than 1e-6
        (1.0, 1.0 + 5e-6, False),
        ([1.0, 2.0], [1.0, 2.0 + 1e-7], True),
        ([1.0, 2.0], (1.0, 2.0), False),  # another type
        ([1.0, 2.0], [1.0], False),
        (3, 3.0, True),  # equal in Python
        (3, 3.0000001, False),  # no floats were asked for
        ("a", "b", False),
        (math.inf, math.inf, True),
        ([1, 2], "12", False),
    ],
)
def test_closeness(expected: Any, value: Any, is_so: bool) -> None:
    assert right("f", expected, value) is is_so


def test_a_task_with_a_tolerance_takes_what_lies_within_it() -> None:
    assert right("f", 10, 10.00005, atol=1e-4) is False  # an int was asked for
    assert right("f", 10.0, 10.00005, atol=1e-4)
    assert not right("f", 10.0, 10.0002, atol=1e-4)


def test_order_is_open_where_the_task_leaves_it_open() -> None:
    assert right("similar_elements", (4, 5), {5, 4})
    assert right("larg_nnum", [85, 75], [75, 85])
    assert not right("larg_nnum", [85, 75], [75])
    assert not right("sorted_again", [85, 75], [75, 85])
    assert not right("larg_nnum", [85], [[85]])  # cannot be in a set


def test_a_match_or_none_is_what_counts_where_gold_returns_a_match() -> None:
    expected = expected_value("check_str", Unserialisable("re.Match"))
    assert expected is True
    assert right("check_str", expected, Unserialisable("re.Match"))
    assert right("check_str", expected, True)
    assert not right("check_str", expected, None)
    assert not right("check_str", expected, False)
    assert expected_value("check_str", None) is False
    assert expected_value("add", 3) == 3


def test_tasks_with_two_readings() -> None:
    assert right("are_equivalent", True, "anything", 36, 57)
    assert right("sum_div", 7, 0, 7)
    assert not right("sum_div", 7, 1, 7)
    assert not right("digit_distance_nums", 1, 5, 23, 56)
    assert right("digit_distance_nums", 1, 6, 23, 56)
    # A pyramid of edge 6 and own height 4 has sides of height 5: 36 + 2 * 6 * 5.
    assert right("surface_Area", 84, 96, 6, 4)
    assert not right("surface_Area", 84, 95, 6, 4)
    assert not right("surface_Area", 84, "96", 6, 4)


def test_made_of_floats() -> None:
    assert is_made_of_floats((0.5, 1.5))
    assert not is_made_of_floats([])
    assert not is_made_of_floats([0.5, 1])


def test_numbers_of_one_hash_take_no_time_that_grows_with_their_square() -> None:
    alike = [number * sys.hash_info.modulus for number in range(40_000)]
    started = time.process_time()
    assert not right("similar_elements", (4, 5), alike)
    assert time.process_time() - started < 3  # a set of them takes ten seconds


@pytest.mark.parametrize(
    ("value", "is_so"),
    [([5, 4, 5], True), ({4, 5}, True), ([5], False), ([4, 5, 6], False), ([[4], 5], False)],
)
def test_an_answer_in_any_order_has_the_same_members(value: Any, is_so: bool) -> None:
    assert right("similar_elements", (4, 5), value) is is_so
