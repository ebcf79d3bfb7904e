from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mira_megatron.scoring.expected_scores import (
    LARGEST_OPEN_SHARE,
    SlotOdds,
    Token,
    answer_odds,
    expected_score,
    expected_scores,
    text_before_score,
    zero_probability,
)

Weights = dict[str, float]

_HALF = math.log(0.5)
_WEIGHTS = st.dictionaries(
    st.integers(0, 10), st.floats(1e-9, 1.0), min_size=1, max_size=11
)  # of scores
_SPLITS = st.floats(0.0, 1.0)


def _top(weights: Weights) -> tuple[tuple[str, float], ...]:
    return tuple((text, math.log(weight)) for text, weight in weights.items())


def _tokens(*pieces: str | tuple[str, Weights]) -> list[Token]:
    """Returns tokens of which those with weights had a choice."""
    return [
        Token(piece) if isinstance(piece, str) else Token(piece[0], _top(piece[1]))
        for piece in pieces
    ]


def _only(tokens: Sequence[Token]) -> SlotOdds:
    (odds,) = answer_odds(tokens)
    return odds


def test_expected_score_of_a_point_mass_is_the_greedy_score() -> None:
    odds = _only(_tokens("[A1] depth: ", ("7", {"7": 1.0}), "/10"))
    assert (odds.slot, odds.score, expected_score(odds)) == (0, 7, 7.0)


@pytest.mark.parametrize(
    "pieces",
    [
        ("[A1] depth: ", ("7", {"7": 0.6, "8": 0.2}), "/10"),
        ("[A1] depth:", (" 7", {" 7": 0.6, " 8": 0.2, "x1": 0.2}), "/10"),
        ("[A1] depth: ", ("7/", {"7/": 0.5, "7": 0.1, "8/": 0.2}), "10"),
        ("[A1] depth", (": 7", {": 7": 0.6, ": 8": 0.2, " of": 0.1}), "/10"),
    ],
)
def test_expected_score_is_the_mean_over_the_values_whatever_else_tokens_hold(
    pieces: tuple[str | tuple[str, Weights], ...],
) -> None:
    assert expected_score(_only(_tokens(*pieces))) == pytest.approx(7.25)


def test_expected_score_of_ten_in_one_token_counts_as_ten() -> None:
    odds = _only(_tokens("[A1] depth: ", ("10", {"10": 0.5, "9": 0.5}), "/10"))
    assert expected_score(odds) == pytest.approx(9.5)


def test_expected_score_after_a_written_one_tells_one_from_ten_by_the_next_token() -> None:
    pieces = ("[A1] depth: ", ("1", {"1": 0.5, "9": 0.5}), ("0", {"0": 0.8, "/": 0.2}), "/10")
    odds = _only(_tokens(*pieces))
    assert odds.score == 10
    assert expected_score(odds) == pytest.approx(0.5 * 9 + 0.5 * (0.8 * 10 + 0.2 * 1))


def test_expected_score_beside_a_likely_one_is_open_until_asked() -> None:
    odds = _only(_tokens("[A1] depth: ", ("9", {"9": 0.5, "1": 0.5}), "/10"))
    assert odds.is_open
    told = odds.with_zero(0.5)
    assert not told.is_open
    assert expected_score(told) == pytest.approx(0.5 * 9 + 0.25 * 10 + 0.25 * 1)


def test_expected_score_one_not_worth_asking_is_off_by_less_than_the_bound() -> None:
    share = 0.999 * LARGEST_OPEN_SHARE
    odds = _only(_tokens("[A1] depth: ", ("9", {"9": 1 - share, "1": share}), "/10"))
    assert not odds.is_open
    assert expected_score(odds.with_zero(1.0)) - expected_score(odds) <= 9 * LARGEST_OPEN_SHARE


@given(_WEIGHTS, _SPLITS)
def test_expected_score_of_ten_is_the_same_in_one_token_and_in_two(
    weights: dict[int, float], zero: float
) -> None:
    whole = sum(weights.values())
    digits = {str(value): weight / whole for value, weight in weights.items() if value != 1}
    one = weights.get(1, 0.5) / whole
    merged = {**digits, "1/": one * (1 - zero)}
    merged["10"] = merged.get("10", 0.0) + one * zero
    split = _only([*_tokens("[A1] d: "), Token("9", _top({**digits, "1": one})), Token("/10")])
    merged = {text: weight for text, weight in merged.items() if weight > 0}
    joined = _only([*_tokens("[A1] d: "), Token("9", _top(merged)), Token("/10")])
    assert expected_score(split.with_zero(zero)) == pytest.approx(expected_score(joined), abs=1e-6)


@given(_WEIGHTS, _SPLITS, st.floats(-50, 0))
def test_expected_score_lies_between_the_values_seen_and_scaling_changes_nothing(
    weights: dict[int, float], zero: float, shift: float
) -> None:
    top = tuple((str(value), math.log(weight)) for value, weight in weights.items())
    shifted = tuple((text, logprob + shift) for text, logprob in top)
    odds, same = (
        _only([Token("[A1] d: "), Token("5", each), Token("/10")]).with_zero(zero)
        for each in (top, shifted)
    )
    seen = {*weights, *({10} if 1 in weights and zero else ())}
    assert min(seen) - 1e-9 <= expected_score(odds) <= max(seen) + 1e-9
    assert expected_score(same) == pytest.approx(expected_score(odds), abs=1e-6)


def test_answer_odds_find_every_line_and_leave_out_what_is_not_a_score() -> None:
    seven, two = ("7", {"7": 1.0}), ("2", {"2": 1.0})
    pieces = ("[A1] ratio: 3: ", seven, "/10\n[A2] n: n/a\n[A3] ", "m: ", two, "/10\nA4: 5/10")
    assert [(odds.slot, odds.score) for odds in answer_odds(_tokens(*pieces))] == [(0, 7), (2, 2)]


def test_answer_odds_without_known_probabilities_are_none() -> None:
    assert answer_odds(_tokens("[A1] d: ", "7", "/10")) == ()
    unseen = ("7", {"x": 0.5, "42": 0.5})
    assert answer_odds(_tokens("[A1] d: ", unseen, "/10")) == ()


def test_expected_scores_keep_what_was_not_given_and_name_what_is_missing() -> None:
    tokens = _tokens("[A1] a: ", ("7", {"7": 0.5, "8": 0.5}), "/10\n[A2] b: n/a\n[A3] c: 4/10")
    scores, faults = expected_scores((7.0, None, 4.0), answer_odds(tokens))
    assert scores[0] == pytest.approx(7.5)
    assert scores[1:] == (None, None)
    assert faults == ["A3: no probabilities for its score"]


def test_zero_probability_counts_every_token_that_makes_it_ten() -> None:
    top = (("0", _HALF), ("0/", math.log(0.25)), ("/", math.log(0.2)), ("00", math.log(0.05)))
    assert zero_probability(top) == pytest.approx(0.75)


def test_text_before_score_is_the_answer_up_to_the_digits_of_a_slot() -> None:
    assert text_before_score("[A1] a: 7/10\n[A2] b: 10/10", 1) == "[A1] a: 7/10\n[A2] b: "
