"""Calibration references: what a low, a middle and a high score of an anchor looked like."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mira_megatron.records import LEVELS, Medoid, Reference
from mira_megatron.rubric.judgment_points import Points
from mira_megatron.rubric.weighted_kmeans import Clusters

_SCORE_DIGITS = 4  # scores are float32 on disk; more digits are its rounding


def references(points: Points, clusters: Clusters, cluster: int) -> tuple[Reference, ...]:
    """Returns at most one reference per level, low to high, no two with the same words.

    The levels are thirds of the cluster's distinct scores: two scores give no middle, one gives
    nothing else. Each level is shown by its judgment nearest to the cluster's centre.
    """
    rows = np.flatnonzero(clusters.label_N[points.point_J] == cluster)
    score_R = points.judgments["score"].to_numpy()[rows]
    point_R = points.point_J[rows]
    closeness_R = clusters.similarity_N[point_R].astype(np.float64)
    chosen = {}
    for level, scores in score_thirds(np.unique(score_R)):
        is_open = np.isin(score_R, scores) & (closeness_R > -np.inf)
        if is_open.any():
            best = int(np.where(is_open, closeness_R, -np.inf).argmax())
            chosen[level] = _reference(level, points, int(rows[best]))
            closeness_R[point_R == point_R[best]] = -np.inf
    return tuple(chosen[level] for level in LEVELS if level in chosen)


def score_thirds(distinct: NDArray[np.float32]) -> list[tuple[str, NDArray[np.float32]]]:
    """Returns the scores of each level, the ends first: they say more than the middle."""
    if len(distinct) == 1:
        return [("middle", distinct)]
    if len(distinct) == 2:
        return [("low", distinct[:1]), ("high", distinct[1:])]
    low, middle, high = np.array_split(distinct, 3)
    return [("low", low), ("high", high), ("middle", middle)]


def medoid(points: Points, point: int) -> Medoid:
    """Returns the first judgment of a point."""
    record_id, source, score, reason = _judgment(points, int(points.first_U[point]))
    return Medoid(record_id=record_id, source=source, score=score, reason=reason)


def _reference(level: str, points: Points, row: int) -> Reference:
    record_id, source, score, reason = _judgment(points, row)
    return Reference(level=level, record_id=record_id, source=source, score=score, reason=reason)


def _judgment(points: Points, row: int) -> tuple[str, str, float, str]:
    record_id, source, score, reason = (
        points.judgments[name][row].as_py() for name in ("record_id", "source", "score", "reason")
    )
    return record_id, source, round(score, _SCORE_DIGITS), reason
