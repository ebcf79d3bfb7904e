"""Which of a family's sources are alike: the arithmetic of source groups, without files.

A source is the direction of the mean of its records' vectors. Sources are clustered by KMeans, with
the number of clusters given or chosen by silhouette. How much the choice owes to the records that
happened to be sampled is measured on resamples of them.

Shapes: S sources, R records of a source, D dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score, silhouette_score
from threadpoolctl import threadpool_limits  # sklearn brings it

from mira_megatron.grouping.unit_vectors import Floats, cosine_matrix, mean_direction

_NUM_STARTS = 50
_DECIMALS = 12  # of a silhouette; below them two choices are equal and the smaller k is taken

# How the number of clusters came about.
ALONE, GIVEN, SILHOUETTE, ALIKE, UNLIKE = "alone", "given", "silhouette", "alike", "unlike"


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterRules:
    """How the number of clusters is found."""

    num_clusters: int | None  # None: the one with the best silhouette …
    min_silhouette: float  # … if it is this good, and otherwise …
    min_cosine: float  # … one cluster if sources are this alike on average, else one each
    seed: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Partition:
    """Sources in clusters, and why there are as many as there are."""

    labels: tuple[int, ...]  # per source; numbered in order of appearance
    chosen_by: str  # ALONE, GIVEN, SILHOUETTE, ALIKE or UNLIKE
    silhouettes: Mapping[int, float]  # cosine, by number of clusters; empty where none was needed
    mean_cosine: float | None  # of every two sources; None for a single one


def partition(vector_SD: Floats, rules: ClusterRules) -> Partition:
    """Returns the clusters of at least one source.

    Raises ValueError when more clusters are asked for than there are sources.
    """
    num_sources = len(vector_SD)
    if rules.num_clusters is not None and not 1 <= rules.num_clusters <= num_sources:
        raise ValueError(f"{num_sources} sources cannot make {rules.num_clusters} groups")
    tried = {k: _cluster(vector_SD, k, rules.seed) for k in range(2, num_sources)}
    silhouettes = {k: _score(vector_SD, tried[k]) for k in tried if len(set(tried[k])) == k}
    mean_cosine = _mean_cosine(vector_SD)
    best = max(silhouettes, key=lambda k: silhouettes[k], default=None)
    num_clusters, chosen_by = 1, ALONE
    if rules.num_clusters is not None:
        num_clusters, chosen_by = rules.num_clusters, GIVEN
    elif best is not None and silhouettes[best] >= rules.min_silhouette:
        num_clusters, chosen_by = best, SILHOUETTE
    elif mean_cosine is not None:
        is_alike = mean_cosine >= rules.min_cosine
        num_clusters, chosen_by = (1, ALIKE) if is_alike else (num_sources, UNLIKE)
    return Partition(
        labels=tried.get(num_clusters) or _cluster(vector_SD, num_clusters, rules.seed),
        chosen_by=chosen_by,
        silhouettes=silhouettes,
        mean_cosine=mean_cosine,
    )


def stability(
    records: Sequence[Floats], chosen: Partition, rules: ClusterRules, *, num_resamples: int
) -> float:
    """Returns the mean adjusted Rand index between the chosen clusters and those of resamples.

    `records` holds the vectors of each source's records, shape (R, D); a resample draws as many of
    them as there are, with replacement. 1 means that every resample gives the same clusters.
    """
    generator = np.random.default_rng(rules.seed % 2**32)
    agreements = []
    for _ in range(num_resamples):
        drawn = [
            vectors[generator.integers(len(vectors), size=len(vectors))] for vectors in records
        ]
        resampled = partition(np.stack([mean_direction(vectors) for vectors in drawn]), rules)
        agreements.append(adjusted_rand_score(chosen.labels, resampled.labels))
    return float(np.mean(agreements))


def _cluster(vector_SD: Floats, num_clusters: int, seed: int) -> tuple[int, ...]:
    """Returns a label per source; of equal vectors there may be fewer clusters than asked for."""
    num_clusters = min(num_clusters, len(np.unique(vector_SD, axis=0)))
    if num_clusters in (1, len(vector_SD)):
        return tuple(range(len(vector_SD))) if num_clusters > 1 else (0,) * len(vector_SD)
    with threadpool_limits(limits=1):  # threads would add up in the order in which they end
        kmeans = KMeans(num_clusters, n_init=_NUM_STARTS, random_state=seed % 2**32)
        found = kmeans.fit_predict(vector_SD.astype(np.float64))
    number_of: dict[int, int] = {}
    return tuple(number_of.setdefault(int(label), len(number_of)) for label in found)


def _score(vector_SD: Floats, labels: Sequence[int]) -> float:
    """Returns the mean silhouette by cosine."""
    score = silhouette_score(vector_SD.astype(np.float64), labels, metric="cosine")
    return round(float(score), _DECIMALS)


def _mean_cosine(vector_SD: Floats) -> float | None:
    if len(vector_SD) < 2:
        return None
    above = np.triu_indices(len(vector_SD), k=1)
    return float(cosine_matrix(vector_SD)[above].mean())
