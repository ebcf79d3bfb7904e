"""The choice within one scope: floors first, caps held, the rest by rank.

1. A capped source offers the longest prefix of its own ranking within its cap, and no more.
2. A source with a floor keeps the longest prefix of its own ranking within its floor.
3. All other documents on offer are ranked together, and the longest prefix of that ranking that
   fits what is left of the scope's budget is kept. No lower-ranked document fills a gap.

Where documents without a score are drawn (offers.py), budget, floors and caps hold these, too.

Shape letters: D documents of one source, C ranked documents of all sources of the scope, R of them
that are neither reserved nor beyond a cap.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mira_megatron.retention.arms import ArmConfig
from mira_megatron.retention.budgets import Ranked, Repeats, times_within_budget
from mira_megatron.retention.candidates import SourceDocuments
from mira_megatron.retention.decisions import Decision
from mira_megatron.retention.offers import Offer, offer
from mira_megatron.retention.ranking import best_prefix, ranked


@dataclass(frozen=True, kw_only=True, slots=True)
class Cut:
    """Where the ranking of one scope was cut."""

    budget_tokens: int
    num_candidates: int
    candidate_tokens: int  # of the documents that could be trained on, scored or not
    num_kept: int
    tokens_kept: int  # a repeated document's count each time
    cutoff: float | None  # score of the last document kept by rank, or else of the last reserved
    first_out: str | None  # id of the first ranked document that was left out
    num_repeated: int = 0  # documents kept that are seen more than once


@dataclass(frozen=True, kw_only=True, slots=True)
class Chosen:
    """What was chosen of one source."""

    times_D: npt.NDArray[np.uint8]  # how often each document is seen, 0 = dropped
    decisions_D: npt.NDArray[np.uint8]
    num_reserved: int = 0  # kept because of its floor, before anything was ranked
    tokens_reserved: int = 0


def choose_in_scope(
    entries: Sequence[SourceDocuments], config: ArmConfig, seed: int, budget_tokens: int
) -> tuple[dict[str, Chosen], Cut]:
    """Returns what is kept of each source of one scope, and where its ranking was cut.

    The floors of its sources fit the budget.
    """
    offers = [offer(entry, config, seed) for entry in entries]
    pool = _pool(offers, seed)
    found = times_within_budget(
        pool.scores_R,
        pool.tokens_R,
        pool.ties,
        _tokens_for_ranked(pool, budget_tokens),
        _repeats(config),
    )
    chosen = {
        each.entry.source: _chosen(each, times_K)
        for each, times_K in zip(offers, pool.split(found.times_D), strict=True)
    }
    return chosen, _cut(pool, found, chosen, budget_tokens)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Pool:
    """The documents that the sources of a scope compete with."""

    offers: Sequence[Offer]
    seed: int
    starts: npt.NDArray[np.intp]  # of each offer among the C
    open_R: npt.NDArray[np.intp] | None  # positions among the C; None: all of them
    scores_R: npt.NDArray[np.float32]
    tokens_R: npt.NDArray[np.int64]

    def among_all(self, positions: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
        """Returns the positions among the C of some of the R."""
        return positions if self.open_R is None else self.open_R[positions]

    def ties(self, positions: npt.NDArray[np.intp]) -> npt.NDArray[np.uint64]:
        """Returns the tie values of some of the R, their positions ascending."""
        asked = self.among_all(positions)
        ends = np.searchsorted(asked, [*self.starts[1:], np.iinfo(np.intp).max])
        begins = [0, *ends[:-1]]
        return np.concatenate(
            [
                each.ties(asked[begin:end] - start, self.seed)
                for each, start, begin, end in zip(
                    self.offers, self.starts, begins, ends, strict=True
                )
            ]
        )

    def record_id(self, position: int) -> str:
        """Returns the id of one of the R."""
        asked = int(self.among_all(np.array([position]))[0])
        number = bisect_right(self.starts.tolist(), asked) - 1
        # An offer without documents starts where the next one does, and is never the last of them.
        each = self.offers[number]
        document = each.documents_K[asked - int(self.starts[number])]
        name: str = each.entry.record_ids[int(document)].as_py()
        return name

    def split(self, times_R: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.uint8]]:
        """Returns how often each ranked document of each offer is seen, reserved ones once."""
        if self.open_R is None:
            return np.split(times_R, self.starts[1:])
        times_C = np.concatenate(
            [
                np.zeros(len(each.documents_K), dtype=np.uint8)
                if each.is_reserved_K is None
                else each.is_reserved_K.astype(np.uint8)
                for each in self.offers
            ]
        )
        times_C[self.open_R] = times_R
        return np.split(times_C, self.starts[1:])


def _pool(offers: Sequence[Offer], seed: int) -> _Pool:
    starts = np.cumsum([0, *(len(each.documents_K) for each in offers)])[:-1]
    scores, tokens = offers[0].scores_K, offers[0].tokens_K
    if len(offers) > 1:  # concatenation copies
        scores = np.concatenate([each.scores_K for each in offers])
        tokens = np.concatenate([each.tokens_K for each in offers])
    open_R = None
    if any(each.is_within_cap_K is not None or each.is_reserved_K is not None for each in offers):
        open_R = np.flatnonzero(np.concatenate([_is_open(each) for each in offers]))
        scores, tokens = scores[open_R], tokens[open_R]
    return _Pool(
        offers=offers, seed=seed, starts=starts, open_R=open_R, scores_R=scores, tokens_R=tokens
    )


def _is_open(each: Offer) -> npt.NDArray[np.bool_]:
    is_open_K = np.ones(len(each.documents_K), dtype=np.bool_)
    if each.is_within_cap_K is not None:
        is_open_K &= each.is_within_cap_K
    if each.is_reserved_K is not None:
        is_open_K &= ~each.is_reserved_K
    return is_open_K


def _tokens_for_ranked(pool: _Pool, budget_tokens: int) -> int:
    """Returns what the ranked documents may hold, so that all that is kept fits the budget."""
    left = budget_tokens - sum(
        each.reserved_tokens + each.random_tokens(each.reserved_tokens) for each in pool.offers
    )
    assert left >= 0, "the floors of a scope fit its budget"
    if all(each.lots is None for each in pool.offers):
        return left
    # The more of the scored is kept, the more of the unscored is drawn, so less fits.
    kept = np.flatnonzero(best_prefix(pool.scores_R, pool.tokens_R, pool.ties, left).is_kept_K)
    ranking = kept[ranked(pool.scores_R[kept], pool.ties(kept))]
    number_of = np.searchsorted(pool.starts, pool.among_all(ranking), side="right") - 1
    of_offer = [np.flatnonzero(number_of == number) for number in range(len(pool.offers))]
    ends_of_offer = [np.cumsum(pool.tokens_R[ranking[places]]) for places in of_offer]

    def tokens_with_drawn(num_kept: int) -> int:
        tokens = 0
        for each, places, ends in zip(pool.offers, of_offer, ends_of_offer, strict=True):
            number = int(np.searchsorted(places, num_kept))
            scored = each.reserved_tokens + (int(ends[number - 1]) if number else 0)
            tokens += scored + each.random_tokens(scored)
        return tokens

    fitting = bisect_right(
        range(len(ranking) + 1), budget_tokens, key=tokens_with_drawn
    )  # at least 1: to keep none fits
    return int(pool.tokens_R[ranking[: fitting - 1]].sum())


def _chosen(each: Offer, times_K: npt.NDArray[np.uint8]) -> Chosen:
    entry = each.entry
    decisions_D = entry.barred_D.copy()
    decisions_D[entry.is_trainable_D & ~entry.is_scored_D] = Decision.NO_SCORE
    decisions_D[each.documents_K] = Decision.NOT_SELECTED
    if each.is_within_cap_K is not None:
        decisions_D[each.documents_K[~each.is_within_cap_K]] = Decision.BEYOND_CAP
    times_D = np.zeros(len(entry.tokens_D), dtype=np.uint8)
    times_D[each.documents_K] = times_K
    if each.lots is not None:
        num_drawn = each.lots.num_drawn(int(np.dot(each.tokens_K, times_K)))
        times_D[each.lots.documents_U[:num_drawn]] = 1
    decisions_D[times_D > 0] = Decision.KEPT
    return Chosen(
        times_D=times_D,
        decisions_D=decisions_D,
        num_reserved=0 if each.is_reserved_K is None else int(each.is_reserved_K.sum()),
        tokens_reserved=each.reserved_tokens,
    )


def _cut(pool: _Pool, found: Ranked, chosen: dict[str, Chosen], budget_tokens: int) -> Cut:
    entries = [each.entry for each in pool.offers]
    reserved = [
        each.scores_K[each.is_reserved_K]
        for each in pool.offers
        if each.is_reserved_K is not None and each.is_reserved_K.any()
    ]
    cutoff = found.cutoff
    if cutoff is None and reserved:
        cutoff = min(float(scores.min()) for scores in reserved)
    return Cut(
        budget_tokens=budget_tokens,
        num_candidates=sum(entry.num_barred(Decision.KEPT) for entry in entries),
        candidate_tokens=sum(entry.trainable_tokens for entry in entries),
        num_kept=sum(int(np.count_nonzero(each.times_D)) for each in chosen.values()),
        tokens_kept=sum(
            int(np.dot(entry.tokens_D, chosen[entry.source].times_D)) for entry in entries
        ),
        cutoff=cutoff,
        first_out=None if found.first_out is None else pool.record_id(found.first_out),
        num_repeated=found.num_repeated,
    )


def _repeats(config: ArmConfig) -> Repeats | None:
    if config.repeat_fraction is None or config.repeat_times is None:
        return None
    return Repeats(fraction=config.repeat_fraction, times=config.repeat_times)
