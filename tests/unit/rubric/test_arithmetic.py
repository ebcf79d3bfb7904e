from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mira_megatron.rubric.arithmetic import check_equations, numbers_in, numbers_in_words


@pytest.mark.parametrize(
    "text",
    [
        "16 - 3 = 13",
        "she has 2 + 3 * 4 = 14 eggs",
        "<<48/2=24>>24",
        "10 / 3 = 3.33",
        "1,000 + 500 = $1,500",
        "40 * .5 = 20",
        "3 × 4 ÷ 2 = 6",
    ],
)
def test_check_equations_true_equation_is_checked_and_holds(text: str) -> None:
    equations = check_equations(text)
    assert (equations.num_checked, equations.num_wrong) == (1, 0)


def test_check_equations_false_equation_is_quoted() -> None:
    equations = check_equations("2 + 2 = 4 and 16 - 3 = 12.")
    assert (equations.num_checked, equations.num_wrong) == (2, 1)
    assert equations.first_wrong == "16 - 3 = 12"


@pytest.mark.parametrize(
    "text",
    [
        "x + 3 = 5",
        "2 x 5 + 3 = 13",
        "5 \\times 3 + 2 = 17",
        "50% * 20 = 10",
        "(4 + 2) * 3 + 1 = 19",
        "3 * 4 = 2 * 6",
        "1 / 0 = 5",
        "width = 5",
        "1 + " * 60 + "1 = 61",
    ],
)
def test_check_equations_what_it_cannot_read_is_not_judged(text: str) -> None:
    assert check_equations(text).num_checked == 0


@given(st.lists(st.integers(0, 999), min_size=2, max_size=8))
def test_check_equations_sums_hold_and_other_results_do_not(terms: list[int]) -> None:
    written = " + ".join(map(str, terms))
    assert check_equations(f"{written} = {sum(terms)}").num_wrong == 0
    far_off = 2 * sum(terms) + 1
    assert check_equations(f"{written} = {far_off}").num_wrong == 1


def test_numbers_in_thousands_commas_are_removed() -> None:
    assert numbers_in("1,234.5 eggs, 2 ducks") == [1234.5, 2.0]


def test_check_equations_results_are_all_right_sides() -> None:
    text = "x = 12, (4 + 2) * 3 = 18, 2 + 2 = -5"
    assert check_equations(text).results == (12.0, 18.0, 5.0)


def test_numbers_in_words_are_spelled_out_or_implied_by_units() -> None:
    assert numbers_in_words("Three eggs, a dozen a week") == {3.0, 12.0, 7.0, 52.0}
    assert numbers_in_words("tenfold, oneself") == frozenset()
