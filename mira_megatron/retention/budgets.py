"""Which documents fit a token budget: ranked, cut at the first that does not fit.

Shape letters: D documents.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, kw_only=True, slots=True)
class Repeats:
    """The best part of what is kept is seen more than once."""

    fraction: float  # of the tokens kept, in (0, 1]
    times: int  # at least 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Cut:
    """Where the ranking of one scope was cut."""

    budget_tokens: int
    num_candidates: int
    candidate_tokens: int  # of the documents that could be trained on, scored or not
    num_kept: int
    tokens_kept: int  # a repeated document's count each time
    cutoff: float | None  # score of the last document kept
    first_out: int | None  # position of the first ranked document that was left out
    num_repeated: int = 0  # documents kept that are seen more than once


def times_within_budget(
    scores_D: npt.NDArray[np.float32],
    is_scored_D: npt.NDArray[np.bool_],
    tokens_D: npt.NDArray[np.int64],
    ties_D: npt.NDArray[np.uint64],
    budget_tokens: int,
    repeats: Repeats | None = None,
) -> tuple[npt.NDArray[np.uint8], Cut]:
    """Returns how often each document is seen (D,), 0 = dropped, and where the ranking was cut.

    Documents are ranked by score, highest first, equal scores by their tie value, lowest first.
    Kept is the longest prefix of that ranking whose tokens fit the budget: it is never exceeded,
    and no lower-ranked document fills the gap. A document without a score is never kept. With
    `repeats`, the longest prefix of the kept documents that holds at most that fraction of their
    tokens is seen several times, and the budget holds all of it.
    """
    scored = np.flatnonzero(is_scored_D)
    ranking = scored[np.lexsort((ties_D[scored], -scores_D[scored].astype(np.float64)))]
    ends = np.cumsum(tokens_D[ranking])
    num_repeated = _num_repeated(ends, repeats)
    passes = ends
    if repeats is not None:
        ends_from_none = np.concatenate([[0], ends])
        passes = ends + (repeats.times - 1) * ends_from_none[num_repeated]
    num_kept = int(np.searchsorted(passes, budget_tokens, side="right"))
    times = np.zeros(len(scores_D), dtype=np.uint8)
    times[ranking[:num_kept]] = 1
    if repeats is not None and num_kept:
        times[ranking[: num_repeated[num_kept - 1]]] = repeats.times
    return times, Cut(
        budget_tokens=budget_tokens,
        num_candidates=len(scores_D),
        candidate_tokens=int(tokens_D.sum()),
        num_kept=num_kept,
        tokens_kept=int(passes[num_kept - 1]) if num_kept else 0,
        cutoff=float(scores_D[ranking[num_kept - 1]]) if num_kept else None,
        first_out=int(ranking[num_kept]) if num_kept < len(ranking) else None,
        num_repeated=int(num_repeated[num_kept - 1]) if num_kept else 0,
    )


def _num_repeated(ends_K: npt.NDArray[np.int64], repeats: Repeats | None) -> npt.NDArray[np.int64]:
    """Returns, for each number of ranked documents kept, how many of them are repeated (K,)."""
    if repeats is None:
        return np.zeros(len(ends_K), dtype=np.int64)
    # Whole-number arithmetic: a share of 0.1 of 10 tokens is one token, whatever 0.1 is in binary.
    share = Fraction(str(repeats.fraction))
    limits = _scaled(ends_K, share)
    return np.searchsorted(ends_K, limits, side="right")


def _scaled(ends_K: npt.NDArray[np.int64], share: Fraction) -> npt.NDArray[np.int64]:
    """Returns floor(ends * share) exactly; int64 holds it while tokens * numerator does."""
    if len(ends_K) and int(ends_K[-1]) > np.iinfo(np.int64).max // share.numerator:
        return np.array([math.floor(end * share) for end in ends_K.tolist()], dtype=np.int64)
    return ends_K * share.numerator // share.denominator


def proportional_budgets(budget_tokens: int, candidate_tokens: Mapping[str, int]) -> dict[str, int]:
    """Returns each scope's share of the budget, in proportion to its candidate tokens.

    Shares are rounded down to whole tokens, so their sum never exceeds the budget.
    """
    total = sum(candidate_tokens.values())
    if not total:
        return dict.fromkeys(candidate_tokens, 0)
    return {scope: budget_tokens * tokens // total for scope, tokens in candidate_tokens.items()}
