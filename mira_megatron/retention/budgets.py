"""Which documents fit a token budget: ranked, cut at the first that does not fit.

Shape letters: D documents.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, kw_only=True, slots=True)
class Cut:
    """Where the ranking of one scope was cut."""

    budget_tokens: int
    num_candidates: int
    candidate_tokens: int  # of the documents that could be trained on, scored or not
    num_kept: int
    tokens_kept: int
    cutoff: float | None  # score of the last document kept
    first_out: int | None  # position of the first ranked document that was left out


def keep_within_budget(
    scores_D: npt.NDArray[np.float32],
    is_scored_D: npt.NDArray[np.bool_],
    tokens_D: npt.NDArray[np.int64],
    ties_D: npt.NDArray[np.uint64],
    budget_tokens: int,
) -> tuple[npt.NDArray[np.bool_], Cut]:
    """Returns which documents are kept (D,) and where the ranking was cut.

    Documents are ranked by score, highest first, equal scores by their tie value, lowest first.
    Kept is the longest prefix of that ranking whose tokens fit the budget: it is never exceeded,
    and no lower-ranked document fills the gap. A document without a score is never kept.
    """
    scored = np.flatnonzero(is_scored_D)
    ranking = scored[np.lexsort((ties_D[scored], -scores_D[scored].astype(np.float64)))]
    ends = np.cumsum(tokens_D[ranking])
    num_kept = int(np.searchsorted(ends, budget_tokens, side="right"))
    is_kept = np.zeros(len(scores_D), dtype=bool)
    is_kept[ranking[:num_kept]] = True
    return is_kept, Cut(
        budget_tokens=budget_tokens,
        num_candidates=len(scores_D),
        candidate_tokens=int(tokens_D.sum()),
        num_kept=num_kept,
        tokens_kept=int(ends[num_kept - 1]) if num_kept else 0,
        cutoff=float(scores_D[ranking[num_kept - 1]]) if num_kept else None,
        first_out=int(ranking[num_kept]) if num_kept < len(ranking) else None,
    )


def proportional_budgets(budget_tokens: int, candidate_tokens: Mapping[str, int]) -> dict[str, int]:
    """Returns each scope's share of the budget, in proportion to its candidate tokens.

    Shares are rounded down to whole tokens, so their sum never exceeds the budget.
    """
    total = sum(candidate_tokens.values())
    if not total:
        return dict.fromkeys(candidate_tokens, 0)
    return {scope: budget_tokens * tokens // total for scope, tokens in candidate_tokens.items()}
