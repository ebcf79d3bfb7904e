"""What a budget buys: documents in one ranking, and the shares of scopes in the whole.

Shape letters: D documents, K of them kept when each is seen once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from mira_megatron.retention.ranking import Ties, best_prefix, ranked


@dataclass(frozen=True, kw_only=True, slots=True)
class Repeats:
    """The best part of what is kept is seen more than once."""

    fraction: float  # of the tokens kept, in (0, 1]
    times: int  # at least 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Ranked:
    """How often each ranked document is seen, and where the ranking was cut."""

    times_D: npt.NDArray[np.uint8]  # 0 = dropped
    num_kept: int
    tokens_kept: int  # a repeated document's count each time
    cutoff: float | None  # score of the last document kept
    first_out: int | None  # position of the first ranked document that was left out
    num_repeated: int = 0  # documents kept that are seen more than once


def times_within_budget(
    scores_D: npt.NDArray[np.float32],
    tokens_D: npt.NDArray[np.int64],
    ties: Ties,
    budget_tokens: int,
    repeats: Repeats | None = None,
) -> Ranked:
    """Returns how often each document is seen under a budget, and where the ranking was cut.

    Kept is the longest prefix of the ranking whose tokens fit the budget: it is never exceeded,
    and no lower-ranked document fills the gap. With `repeats`, the longest prefix of the kept
    documents that holds at most that fraction of their tokens is seen several times, and the
    budget holds all of it.
    """
    prefix = best_prefix(scores_D, tokens_D, ties, budget_tokens)
    once = Ranked(
        times_D=prefix.is_kept_K.view(np.uint8),
        num_kept=prefix.num_kept,
        tokens_kept=prefix.tokens_kept,
        cutoff=prefix.cutoff,
        first_out=prefix.first_out,
    )
    return (
        once
        if repeats is None
        else _repeated(once, scores_D, tokens_D, ties, budget_tokens, repeats)
    )


def _repeated(
    once: Ranked,
    scores_D: npt.NDArray[np.float32],
    tokens_D: npt.NDArray[np.int64],
    ties: Ties,
    budget_tokens: int,
    repeats: Repeats,
) -> Ranked:
    """Returns the prefix within the budget when its best documents are seen several times.

    It is a prefix of what fits when each is seen once.
    """
    kept = np.flatnonzero(once.times_D)
    ranking_K = kept[ranked(scores_D[kept], ties(kept))]
    ends_K = np.cumsum(tokens_D[ranking_K])
    num_repeated_K = _num_repeated(ends_K, repeats)
    ends_from_none = np.concatenate([[0], ends_K])
    passes_K = ends_K + (repeats.times - 1) * ends_from_none[num_repeated_K]
    num_kept = int(np.searchsorted(passes_K, budget_tokens, side="right"))
    num_repeated = int(num_repeated_K[num_kept - 1]) if num_kept else 0
    times_D = np.zeros(len(scores_D), dtype=np.uint8)
    times_D[ranking_K[:num_kept]] = 1
    times_D[ranking_K[:num_repeated]] = repeats.times
    return Ranked(
        times_D=times_D,
        num_kept=num_kept,
        tokens_kept=int(passes_K[num_kept - 1]) if num_kept else 0,
        cutoff=float(scores_D[ranking_K[num_kept - 1]]) if num_kept else None,
        first_out=int(ranking_K[num_kept]) if num_kept < len(ranking_K) else once.first_out,
        num_repeated=num_repeated,
    )


def _num_repeated(ends_K: npt.NDArray[np.int64], repeats: Repeats) -> npt.NDArray[np.int64]:
    """Returns, for each number of ranked documents kept, how many of them are repeated (K,)."""
    # Whole-number arithmetic: a share of 0.1 of 10 tokens is one token, whatever 0.1 is in binary.
    limits = _scaled(ends_K, Fraction(str(repeats.fraction)))
    return np.searchsorted(ends_K, limits, side="right")


def _scaled(ends_K: npt.NDArray[np.int64], share: Fraction) -> npt.NDArray[np.int64]:
    """Returns floor(ends * share) exactly; int64 holds it while tokens * numerator does."""
    if len(ends_K) and int(ends_K[-1]) > np.iinfo(np.int64).max // share.numerator:
        return np.array([math.floor(end * share) for end in ends_K.tolist()], dtype=np.int64)
    return ends_K * share.numerator // share.denominator


def shared_budgets(
    budget_tokens: int,
    weights: Mapping[str, int],
    *,
    floors: Mapping[str, int] | None = None,
    capacities: Mapping[str, int] | None = None,
) -> dict[str, int]:
    """Returns each scope's share of the budget, in proportion to its weight, within its bounds.

    A scope whose share is below its floor gets the floor, one whose share is above its capacity
    the capacity, and the others share what is left in proportion, until none is out of bounds.
    Shares are rounded down to whole tokens, so their sum never exceeds the budget. No floor is
    above its capacity, and together they fit the budget.
    """
    floors, capacities = floors or {}, capacities or {}
    fixed = {scope: floors.get(scope, 0) for scope, weight in weights.items() if not weight}
    while True:
        room = budget_tokens - sum(fixed.values())
        shared = {scope: weight for scope, weight in weights.items() if scope not in fixed}
        total = sum(shared.values())
        shares = {scope: Fraction(room * weight, total) for scope, weight in shared.items()}
        lacking = {scope: floors[scope] for scope in shared if shares[scope] < floors.get(scope, 0)}
        exceeding = {
            scope: capacities[scope]
            for scope in shared
            if scope in capacities and shares[scope] > capacities[scope]
        }
        if not lacking and not exceeding:
            break
        # Only the side that moves more tokens is sure to stay out of bounds once the rest moved.
        lack = sum(floor - shares[scope] for scope, floor in lacking.items())
        excess = sum(shares[scope] - capacity for scope, capacity in exceeding.items())
        fixed |= lacking if lack >= excess else {}
        fixed |= exceeding if excess >= lack else {}
    found = {scope: math.floor(share) for scope, share in shares.items()}
    return {scope: fixed[scope] if scope in fixed else found[scope] for scope in weights}
