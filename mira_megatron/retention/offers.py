"""What one source offers to its scope: ranked candidates, and unscored ones to be kept at random.

Documents without a score are dropped, or ranked at the lower median of the scores of their source's
candidates (`source_median`), or kept at random (`keep_random_share`): of a source whose scored
candidates hold S tokens, T of them kept, and whose unscored ones hold U, those with the lowest tie
values are kept, as the longest prefix in that order within floor(T * U / S) tokens.

Shape letters: D documents of one source, K of them that are ranked.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from mira_megatron.retention.arms import NULLS_MEDIAN, NULLS_SHARE, ArmConfig
from mira_megatron.retention.candidates import SourceDocuments
from mira_megatron.retention.ranking import best_prefix
from mira_megatron.retention.ties import tie_values


@dataclass(frozen=True, kw_only=True, slots=True)
class Offer:
    """One source's part of a scope."""

    entry: SourceDocuments
    documents_K: npt.NDArray[np.intp]  # that are ranked, ascending
    scores_K: npt.NDArray[np.float32]
    tokens_K: npt.NDArray[np.int64]
    unscored: npt.NDArray[np.intp]  # documents that are kept at random, ascending
    scored_tokens: int
    unscored_tokens: int
    is_within_cap_K: npt.NDArray[np.bool_] | None = None  # None: all are
    is_reserved_K: npt.NDArray[np.bool_] | None = None  # for its floor; None: none is

    @property
    def reserved_tokens(self) -> int:
        """Returns the tokens of the scored documents that its floor reserves."""
        return 0 if self.is_reserved_K is None else int(np.dot(self.tokens_K, self.is_reserved_K))

    def ties(self, positions: npt.NDArray[np.intp], seed: int) -> npt.NDArray[np.uint64]:
        """Returns the tie values of the ranked documents at these positions, ascending."""
        return tie_values(self.entry.record_ids, seed, self.documents_K[positions])

    def random_tokens(self, scored_tokens_kept: int) -> int:
        """Returns what goes to unscored documents where scored ones of so many tokens are kept."""
        if not self.scored_tokens:
            return 0
        return scored_tokens_kept * self.unscored_tokens // self.scored_tokens

    def is_best_K(self, budget_tokens: int, seed: int) -> npt.NDArray[np.bool_]:
        """Returns which of the ranked fit a budget of this source, the random share included."""
        scored, unscored = self.scored_tokens, self.unscored_tokens
        if scored and unscored:
            # T + floor(T * U / S) <= B  is  T * (S + U) < (B + 1) * S
            budget_tokens = ((budget_tokens + 1) * scored - 1) // (scored + unscored)
        return best_prefix(
            self.scores_K, self.tokens_K, lambda at: self.ties(at, seed), budget_tokens
        ).is_kept_K

    def random_documents(self, scored_tokens_kept: int, seed: int) -> npt.NDArray[np.intp]:
        """Returns the unscored documents that are kept at random."""
        kept = best_prefix(
            np.zeros(len(self.unscored), dtype=np.float32),
            self.entry.tokens_D[self.unscored],
            lambda at: tie_values(self.entry.record_ids, seed, self.unscored[at]),
            self.random_tokens(scored_tokens_kept),
        )
        return self.unscored[kept.is_kept_K]


def offer(entry: SourceDocuments, config: ArmConfig, seed: int) -> Offer:
    """Returns what a source offers under an arm: its cap held, its floor reserved."""
    is_trainable_D = entry.is_trainable_D
    is_ranked_D, scores_D = is_trainable_D & entry.is_scored_D, entry.scores_D
    is_without_D = is_trainable_D & ~entry.is_scored_D
    unscored = np.empty(0, dtype=np.intp)
    if config.nulls == NULLS_SHARE:
        unscored = np.flatnonzero(is_without_D)
    elif config.nulls == NULLS_MEDIAN and is_without_D.any() and is_ranked_D.any():
        scores_D = np.where(is_without_D, lower_median(scores_D[is_ranked_D]), scores_D)
        is_ranked_D = is_trainable_D
    documents_K = np.flatnonzero(is_ranked_D)
    tokens_K = entry.tokens_D[documents_K]
    plain = Offer(
        entry=entry,
        documents_K=documents_K,
        scores_K=scores_D[documents_K],
        tokens_K=tokens_K,
        unscored=unscored,
        scored_tokens=int(tokens_K.sum()),
        unscored_tokens=int(entry.tokens_D[unscored].sum()),
    )
    cap, floor = config.cap_tokens.get(entry.source), config.floor_tokens.get(entry.source)
    return replace(
        plain,
        is_within_cap_K=None if cap is None else plain.is_best_K(cap, seed),
        is_reserved_K=None if floor is None else plain.is_best_K(floor, seed),
    )


def lower_median(scores: npt.NDArray[np.float32]) -> np.float32:
    """Returns the middle one of the scores, of two the lower; there is at least one."""
    middle = (len(scores) - 1) // 2
    median: np.float32 = np.partition(scores, middle)[middle]
    return median


def keepable_tokens(entry: SourceDocuments, nulls: str) -> int:
    """Returns the tokens of a source that could be kept under a policy for missing scores."""
    is_scored_D = entry.is_trainable_D & entry.is_scored_D
    if nulls in (NULLS_SHARE, NULLS_MEDIAN) and is_scored_D.any():
        return entry.trainable_tokens
    return int(np.dot(entry.tokens_D, is_scored_D))
