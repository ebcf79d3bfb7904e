from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mira_megatron.rubric.verdict import balanced, placed, quantified, scaled, scaled_log


@pytest.mark.parametrize(("value", "score"), [(-1, 0), (0, 0), (0.5, 5), (1, 10), (9, 10)])
def test_scaled_is_linear_and_clipped(value: float, score: int) -> None:
    assert scaled(value, worst=0, best=1) == score


def test_scaled_falling_scale_has_its_best_below() -> None:
    assert [scaled(value, worst=4, best=0) for value in (0, 1, 4)] == [10, 8, 0]  # 7.5 goes up


def test_scaled_log_gives_equal_steps_to_equal_factors() -> None:
    assert [scaled_log(value, worst=1, best=10_000) for value in (0, 1, 100, 10_000)] == [
        *(0, 0, 5, 10),
    ]


def test_balanced_is_best_between_low_and_high() -> None:
    values = (0, 1, 2, 3, 4, 6, 8, 9)
    assert [balanced(value, least=0, low=2, high=4, most=8) for value in values] == [
        *(0, 5, 10, 10, 10, 5, 0, 0),
    ]


@given(value=st.floats(0, 1e9), more=st.floats(0, 1e9))
def test_scaled_log_never_falls_with_the_value(value: float, more: float) -> None:
    assert scaled_log(value + more, worst=2, best=50) >= scaled_log(value, worst=2, best=50)


@pytest.mark.parametrize(
    ("num", "word"),
    [(0, "no"), (1, "few"), (5, "some"), (10, "some"), (11, "most"), (18, "nearly all")],
)
def test_quantified_says_the_share_in_words_and_numbers(num: int, word: str) -> None:
    assert quantified(num, 20, "calls fail") == f"{word} calls fail: {num} of 20"


def test_quantified_all_and_nothing_are_told_from_nearly() -> None:
    assert quantified(20, 20, "calls fail").startswith("all ")
    assert quantified(0, 0, "calls fail").startswith("no ")


@pytest.mark.parametrize(("value", "word"), [(0, "few"), (1, "some"), (3, "some"), (4, "many")])
def test_placed_bounds_belong_to_the_middle(value: float, word: str) -> None:
    assert placed(value, low=1, high=3, words=("few", "some", "many")) == word
