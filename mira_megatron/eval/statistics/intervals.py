"""Intervals of one benchmark's score, and what they stand on.

Tasks are taken as drawn from all tasks of the kind. Where they come in clusters (translations of
one problem, questions about one database), the clusters are what was drawn. Scores are fractions,
0 to 1.

Shape letters: T tasks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from scipy.stats import t as student_t

CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """Both ends of an interval, in the unit of what it is of."""

    low: float
    high: float

    def scaled(self, factor: float) -> Interval:
        """Returns the interval in another unit."""
        return Interval(low=factor * self.low, high=factor * self.high)


def normal_quantile(probability: float) -> float:
    """Returns the standard normal's quantile."""
    return NormalDist().inv_cdf(probability)


def wilson(mean: float, num_draws: float, *, critical: float | None = None) -> Interval:
    """Returns Wilson's score interval of a proportion (Wilson 1927).

    `num_draws` independent draws, not necessarily whole; `critical`: the quantile to use, by
    default the normal's for CONFIDENCE. Raises ValueError without a draw.
    """
    if num_draws <= 0:
        raise ValueError(f"num_draws={num_draws} must be above 0: no draws, no interval")
    z = normal_quantile((1 + CONFIDENCE) / 2) if critical is None else critical
    shrink = 1 + z * z / num_draws
    middle = (mean + z * z / (2 * num_draws)) / shrink
    spread = mean * (1 - mean) / num_draws + z * z / (4 * num_draws * num_draws)
    half = z / shrink * math.sqrt(max(0.0, spread))
    return Interval(low=max(0.0, min(mean, middle - half)), high=min(1.0, max(mean, middle + half)))


def t_interval(value: float, error: float, num_clusters: int) -> Interval:
    """Returns value +- Student's quantile for C - 1 degrees of freedom times the standard error."""
    half = error * float(student_t.ppf((1 + CONFIDENCE) / 2, num_clusters - 1))
    return Interval(low=value - half, high=value + half)


def standard_error(scores_T: Sequence[float]) -> float | None:
    """Returns the standard error of the mean of independent tasks; None for fewer than two."""
    if len(scores_T) < 2:
        return None
    return float(np.std(np.asarray(scores_T, dtype=np.float64), ddof=1) / math.sqrt(len(scores_T)))


def clustered_standard_error(scores_T: Sequence[float], clusters_T: Sequence[str]) -> float | None:
    """Returns the standard error of the mean where tasks of a cluster are alike; None for one.

    The sum of squares of each cluster's summed deviations (Miller, arXiv 2411.00640, equation 4),
    times C / (C - 1) for C clusters, so that with a task per cluster it is `standard_error`.
    """
    sums: dict[str, float] = {}
    mean = math.fsum(scores_T) / len(scores_T) if scores_T else 0.0
    for score, cluster in zip(scores_T, clusters_T, strict=True):
        sums[cluster] = sums.get(cluster, 0.0) + score - mean
    if len(sums) < 2:
        return None
    variance = math.fsum(each * each for each in sums.values()) * len(sums) / (len(sums) - 1)
    return math.sqrt(variance) / len(scores_T)


def clustered_interval(scores_T: Sequence[float], clusters_T: Sequence[str]) -> Interval | None:
    """Returns Wilson's interval for as many draws as the clusters are worth; None for one cluster.

    The worth is mean x (1 - mean) / clustered SE squared: the number of independent tasks that
    would give that error. Student's quantile stands for the normal's, because the error is itself
    estimated from few clusters (Korn and Graubard 1998 treat proportions of surveys so). Where no
    cluster deviates, at 0 or 1, the worth is the number of clusters.
    """
    error = clustered_standard_error(scores_T, clusters_T)
    if error is None:
        return None
    num_clusters = len(set(clusters_T))
    mean = math.fsum(scores_T) / len(scores_T)
    spread = mean * (1 - mean)
    is_constant = error * error < 1e-15 or spread <= 0
    num_draws = float(num_clusters) if is_constant else spread / (error * error)
    critical = float(student_t.ppf((1 + CONFIDENCE) / 2, num_clusters - 1))
    return wilson(mean, num_draws, critical=critical)
