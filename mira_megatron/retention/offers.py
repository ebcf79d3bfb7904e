"""What one source offers to its scope: ranked candidates, and unscored ones to be kept at random.

Documents without a score are dropped, or ranked at the lower median of the scores of their source's
candidates (`source_median`), or drawn (`keep_random_share`): of a source whose scored candidates
hold S tokens, T of them kept, each unscored one is kept where its tie value is below T / S of 2^64.
Whether it is drawn does not depend on its length, and the more of the scored is kept, the more is
drawn. What is drawn counts in budget, floors and caps: these end the ranking sooner.

Shape letters: D documents of one source, K of them that are ranked, U that may be drawn.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from mira_megatron.retention.arms import NULLS_MEDIAN, NULLS_SHARE, ArmConfig
from mira_megatron.retention.candidates import SourceDocuments
from mira_megatron.retention.ranking import best_prefix
from mira_megatron.retention.ties import tie_values

_TIE_BITS = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Lots:
    """The documents of one source that are drawn from, first drawn first."""

    documents_U: npt.NDArray[np.intp]
    ties_U: npt.NDArray[np.uint64]  # ascending
    ends_U: npt.NDArray[np.int64]  # tokens of each and those before it
    scored_tokens: int  # of the source

    def num_drawn(self, scored_tokens_kept: int) -> int:
        """Returns how many are drawn where scored documents of so many tokens are kept."""
        if not self.scored_tokens:
            return 0
        # tie / 2^64 < T / S, in whole numbers
        limit = -(-(scored_tokens_kept << _TIE_BITS) // self.scored_tokens)
        if limit >> _TIE_BITS:
            return len(self.ties_U)
        return int(np.searchsorted(self.ties_U, np.uint64(limit)))

    def tokens_drawn(self, scored_tokens_kept: int) -> int:
        """Returns the tokens of those."""
        num_drawn = self.num_drawn(scored_tokens_kept)
        return int(self.ends_U[num_drawn - 1]) if num_drawn else 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Offer:
    """One source's part of a scope."""

    entry: SourceDocuments
    documents_K: npt.NDArray[np.intp]  # that are ranked, ascending
    scores_K: npt.NDArray[np.float32]
    tokens_K: npt.NDArray[np.int64]
    lots: Lots | None = None  # None: nothing is drawn
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
        """Returns what is drawn of the unscored where scored ones of so many tokens are kept."""
        return 0 if self.lots is None else self.lots.tokens_drawn(scored_tokens_kept)

    def is_best_K(self, budget_tokens: int, seed: int) -> npt.NDArray[np.bool_]:
        """Returns which of the ranked fit a budget of this source, what they draw included."""
        if self.lots is not None:
            most = min(budget_tokens, self.lots.scored_tokens)
            budget_tokens = (
                bisect_right(
                    range(most + 1), budget_tokens, key=lambda kept: kept + self.random_tokens(kept)
                )
                - 1  # at least 0: to keep none draws none
            )
        return best_prefix(
            self.scores_K, self.tokens_K, lambda at: self.ties(at, seed), budget_tokens
        ).is_kept_K


def offer(entry: SourceDocuments, config: ArmConfig, seed: int) -> Offer:
    """Returns what a source offers under an arm: its cap held, its floor reserved."""
    is_trainable_D = entry.is_trainable_D
    is_ranked_D, scores_D = is_trainable_D & entry.is_scored_D, entry.scores_D
    is_without_D = is_trainable_D & ~entry.is_scored_D
    if config.nulls == NULLS_MEDIAN and is_without_D.any() and is_ranked_D.any():
        scores_D = np.where(is_without_D, lower_median(scores_D[is_ranked_D]), scores_D)
        is_ranked_D = is_trainable_D
    documents_K = np.flatnonzero(is_ranked_D)
    tokens_K = entry.tokens_D[documents_K]
    plain = Offer(
        entry=entry,
        documents_K=documents_K,
        scores_K=scores_D[documents_K],
        tokens_K=tokens_K,
        lots=_lots(entry, is_without_D, int(tokens_K.sum()), seed)
        if config.nulls == NULLS_SHARE and is_without_D.any()
        else None,
    )
    cap, floor = config.cap_tokens.get(entry.source), config.floor_tokens.get(entry.source)
    return replace(
        plain,
        is_within_cap_K=None if cap is None else plain.is_best_K(cap, seed),
        is_reserved_K=None if floor is None else plain.is_best_K(floor, seed),
    )


def _lots(
    entry: SourceDocuments, is_without_D: npt.NDArray[np.bool_], scored_tokens: int, seed: int
) -> Lots:
    documents = np.flatnonzero(is_without_D)
    ties = tie_values(entry.record_ids, seed, documents)
    order_U = np.argsort(ties, kind="stable")
    documents_U = documents[order_U]
    return Lots(
        documents_U=documents_U,
        ties_U=ties[order_U],
        ends_U=np.cumsum(entry.tokens_D[documents_U]),
        scored_tokens=scored_tokens,
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
