"""Would other records have led to the same anchors? Clusters are found again in resamples.

Records are drawn with replacement, as many as there are, and their judgments are clustered with the
same settings: a point's weight is how often it was drawn. For speed a seeded subset of the points
stands for all where there are more than `max_resample_strings`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import adjusted_rand_score

from mira_megatron.rubric.judgment_points import Points
from mira_megatron.rubric.weighted_kmeans import Clusters, Indices, cluster

_RAND_DIGITS = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Resample:
    """What became of a part's clusters in one resample."""

    num_strings: int
    adjusted_rand: float | None  # of both assignments of its strings; None: too few to cluster
    names: frozenset[str]  # of its medoids


def resamples(
    points: Points,
    clusters: Clusters,
    *,
    num_resamples: int,
    max_strings: int,
    num_starts: int,
    seed: Sequence[int],
    threads: int,
) -> list[Resample]:
    """Returns the outcome of each resample of a part's records."""
    generator = np.random.default_rng(seed)
    record_J = points.judgments["record_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    subset = _subset(generator, len(points.weight_U), max_strings)
    num_records, num_clusters = int(record_J.max()) + 1, len(clusters.centre_KD)
    found = []
    for index in range(num_resamples):
        drawn = np.bincount(generator.integers(num_records, size=num_records))
        drawn.resize(num_records, refcheck=False)
        weight_U = np.bincount(points.point_J, weights=drawn[record_J]).astype(np.float64)
        strings = subset[weight_U[subset] > 0]
        again = cluster(
            points.vector_UD[strings],
            weight_U[strings],
            num_clusters,
            num_starts=num_starts,
            seed=(*seed, index),
            threads=threads,
        )
        found.append(_compared(points, clusters, strings, again))
    return found


def name_share(found: Sequence[Resample], name: str) -> float | None:
    """Returns the share of resamples in which some medoid has this name; None without resamples."""
    usable = [resample for resample in found if resample.adjusted_rand is not None]
    if not usable:
        return None
    return round(sum(name in resample.names for resample in usable) / len(usable), _RAND_DIGITS)


def _subset(generator: np.random.Generator, num_points: int, max_strings: int) -> Indices:
    if num_points <= max_strings:
        return np.arange(num_points)
    return np.sort(generator.choice(num_points, max_strings, replace=False))


def _compared(points: Points, clusters: Clusters, strings: Indices, again: Clusters) -> Resample:
    if len(again.centre_KD) < len(clusters.centre_KD):
        return Resample(num_strings=len(strings), adjusted_rand=None, names=frozenset())
    medoids = [int(strings[again.medoid(index)]) for index in range(len(again.centre_KD))]
    score = adjusted_rand_score(clusters.label_N[strings], again.label_N)
    return Resample(
        num_strings=len(strings),
        adjusted_rand=round(float(score), _RAND_DIGITS),
        names=frozenset(points.dimension_U[medoid] for medoid in medoids),
    )
