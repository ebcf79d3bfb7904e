"""The best documents that fit a token budget, without sorting all of them.

A ranking is by score, highest first, then by tie value, lowest first. What is kept is its longest
prefix within the budget. Only the documents around the cut need an order: digit by digit of the key
(score, tie value), one histogram of tokens finds the bin in which the budget ends; what lies before
it is kept, what lies behind it is dropped, and the next digit looks into that bin alone. The few
that are left are sorted. So tie values are asked for near the cut only.

Shape letters: K documents that are ranked, R of them whose fate is still open.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

# Tie values of the documents at these positions, which ascend.
Ties = Callable[[npt.NDArray[np.intp]], npt.NDArray[np.uint64]]

_DIGIT_BITS = 16
_DIGIT = (1 << _DIGIT_BITS) - 1
_INFINITY = 0x7F80_0000  # in the bits of a float32
SORTED_AT_ONCE = 2_048  # fewer are sorted sooner than counted
_EXACT_FLOATS = 2**53  # up to here the float64 sums of a histogram are exact


@dataclass(frozen=True, kw_only=True, slots=True)
class Prefix:
    """The longest prefix of a ranking within a budget."""

    is_kept_K: npt.NDArray[np.bool_]
    num_kept: int
    tokens_kept: int
    cutoff: float | None  # score of the last document kept
    first_out: int | None  # position of the first document left out


def ranked(
    scores_K: npt.NDArray[np.float32], ties_K: npt.NDArray[np.uint64]
) -> npt.NDArray[np.intp]:
    """Returns the positions of all documents, best first, by a full sort."""
    return np.lexsort((ties_K, -scores_K.astype(np.float64)))


def best_prefix(
    scores_K: npt.NDArray[np.float32],
    tokens_K: npt.NDArray[np.int64],
    ties: Ties,
    budget_tokens: int,
    *,
    sorted_at_once: int = SORTED_AT_ONCE,
) -> Prefix:
    """Returns the longest prefix of the ranking whose tokens fit the budget.

    Scores are numbers, not NaN: a document without a score has no place in a ranking. The result
    does not depend on `sorted_at_once`.
    """
    total = int(tokens_K.sum())
    if total <= budget_tokens:
        return Prefix(
            is_kept_K=np.ones(len(scores_K), dtype=np.bool_),
            num_kept=len(scores_K),
            tokens_kept=total,
            cutoff=float(scores_K.min()) if len(scores_K) else None,
            first_out=None,
        )
    is_kept_K = np.zeros(len(scores_K), dtype=np.bool_)
    order_K = _order(scores_K)
    if total < _EXACT_FLOATS:
        open_R, spent = _narrowed(order_K, tokens_K, ties, budget_tokens, is_kept_K, sorted_at_once)
    else:
        open_R, spent = np.arange(len(scores_K)), 0
    ranking_R = open_R[ranked(scores_K[open_R], ties(open_R))]
    ends_R = spent + np.cumsum(tokens_K[ranking_R])
    num_fitting = int(np.searchsorted(ends_R, budget_tokens, side="right"))
    is_kept_K[ranking_R[:num_fitting]] = True
    num_kept = int(np.count_nonzero(is_kept_K))
    cutoff: float | None = None
    if num_fitting:
        cutoff = float(scores_K[ranking_R[num_fitting - 1]])
    elif num_kept:
        cutoff = float(scores_K[is_kept_K].min())
    return Prefix(
        is_kept_K=is_kept_K,
        num_kept=num_kept,
        tokens_kept=int(ends_R[num_fitting - 1]) if num_fitting else spent,
        cutoff=cutoff,
        first_out=int(ranking_R[num_fitting]),
    )


def _narrowed(
    order_K: npt.NDArray[np.int32],
    tokens_K: npt.NDArray[np.int64],
    ties: Ties,
    budget_tokens: int,
    is_kept_K: npt.NDArray[np.bool_],
    sorted_at_once: int,
) -> tuple[npt.NDArray[np.intp], int]:
    """Returns the documents whose fate is open, and the tokens of what was put into `is_kept_K`.

    The documents do not all fit the budget.
    """
    open_R: npt.NDArray[np.intp] | None = None  # all of them, which need no positions
    spent = 0
    for digit_of in (_high_digit, _low_digit, _tie_digit):
        digit_R = digit_of(order_K, ties, open_R)
        if digit_R is None:
            continue
        tokens_R = tokens_K if open_R is None else tokens_K[open_R]
        ends = np.cumsum(np.bincount(digit_R, weights=tokens_R))
        last = int(np.searchsorted(ends, budget_tokens - spent, side="right"))
        is_before_R, is_open_R = digit_R < last, digit_R == last
        if open_R is None:
            np.copyto(is_kept_K, is_before_R)
            open_R = np.flatnonzero(is_open_R)
        else:
            is_kept_K[open_R[is_before_R]] = True
            open_R = open_R[is_open_R]
        spent += int(ends[last - 1]) if last else 0
        if len(open_R) <= sorted_at_once:
            break
    return np.arange(len(order_K)) if open_R is None else open_R, spent


# The digits of a document's key, the best document's lowest; None where all of them are equal.
_Digits = npt.NDArray[np.integer] | None


def _high_digit(
    order_K: npt.NDArray[np.int32], ties: Ties, open_R: npt.NDArray[np.intp] | None
) -> _Digits:
    assert open_R is None
    best, worst = int(order_K.max()), int(order_K.min())
    return None if best == worst else (best >> _DIGIT_BITS) - (order_K >> _DIGIT_BITS)


def _low_digit(
    order_K: npt.NDArray[np.int32], ties: Ties, open_R: npt.NDArray[np.intp] | None
) -> _Digits:
    if open_R is None:  # not even the high digit told them apart: all scores are equal
        return None
    digit_R = order_K[open_R] & _DIGIT
    best, worst = int(digit_R.max()), int(digit_R.min())
    return None if best == worst else best - digit_R


def _tie_digit(
    order_K: npt.NDArray[np.int32], ties: Ties, open_R: npt.NDArray[np.intp] | None
) -> _Digits:
    ties_R = ties(np.arange(len(order_K)) if open_R is None else open_R)
    return (ties_R >> np.uint64(64 - _DIGIT_BITS)).astype(np.intp)


def _order(scores_K: npt.NDArray[np.float32]) -> npt.NDArray[np.int32]:
    """Returns whole numbers in the order of the scores; equal scores have equal ones."""
    order_K: npt.NDArray[np.int32] = (scores_K + np.float32(0)).view(np.int32)  # -0.0 becomes 0.0
    if order_K.min() < 0:  # a lower negative number has higher bits behind its sign
        order_K ^= (order_K >> 31) & 0x7FFF_FFFF
    # NaN is beyond the infinities.
    assert -_INFINITY - 1 <= order_K.min() <= order_K.max() <= _INFINITY
    return order_K
