"""What the page's what-if knows of scores: tokens and documents of every source per score bin.

Where a table has few distinct scores, each is a bin of its own and only ties are uncertain;
otherwise bins are a hundredth of a point wide. Shape letters: D documents, B bins.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mira_megatron.report.outcomes import JudgedArm, JudgedSource, Outcome

MAX_DISTINCT = 1000
_BINS_PER_POINT = 100
# Neither held out nor with another arm or list, nor of a source that the arm leaves out: what it
# could have kept.
_CANDIDATES = (Outcome.KEPT, Outcome.NO_SCORE, Outcome.BEYOND_CAP, Outcome.NOT_SELECTED)


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceBins:
    """One source's ranked candidates, best bin first; only bins that hold some."""

    scores: tuple[float, ...]  # a bin's lowest score
    num_documents: tuple[int, ...]
    tokens: tuple[int, ...]


def is_candidate(judged: JudgedSource) -> npt.NDArray[np.bool_]:
    """Returns which documents of a source (D,) the arm chose from, scored or not."""
    return np.isin(judged.outcomes_D, _CANDIDATES)


def bin_width(arm: JudgedArm) -> float:
    """Returns the width of the arm's bins in points; 0 where every distinct score is one."""
    distinct = np.empty(0, dtype=np.float32)
    for judged in arm.sources:
        distinct = np.union1d(distinct, judged.scores_D[is_candidate(judged) & judged.is_scored_D])
        if len(distinct) > MAX_DISTINCT:
            return 1 / _BINS_PER_POINT
    return 0.0


def source_bins(judged: JudgedSource, width: float) -> SourceBins:
    """Returns the bins of one source under one arm."""
    is_ranked_D = is_candidate(judged) & judged.is_scored_D
    scores = judged.scores_D[is_ranked_D].astype(np.float64)
    if width:
        scores = np.floor(scores * _BINS_PER_POINT) / _BINS_PER_POINT
    lows_B, bin_D = np.unique(scores, return_inverse=True)
    tokens_B = np.zeros(len(lows_B), dtype=np.int64)
    np.add.at(tokens_B, bin_D, judged.tokens_D[is_ranked_D])  # float weights would round
    return SourceBins(
        scores=tuple(lows_B[::-1].tolist()),
        num_documents=tuple(np.bincount(bin_D, minlength=len(lows_B))[::-1].tolist()),
        tokens=tuple(tokens_B[::-1].tolist()),
    )
