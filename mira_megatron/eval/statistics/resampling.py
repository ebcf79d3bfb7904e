"""The joint cluster bootstrap: scores of all benchmarks and checkpoints under resampled clusters.

Clusters are drawn with replacement, as many as there are, once per resample for everything that
shares them: MBPP with MBPP+, BigCodeBench hard inside full, a HumanEval problem in eight languages,
and every checkpoint. So the resamples keep how benchmarks hang together, and differences between
checkpoints are paired. What shares no clusters is one stratum each, drawn on its own.

Shape letters: R resamples, C clusters, B benchmarks (of all checkpoints).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xxhash

from mira_megatron.eval.statistics.intervals import CONFIDENCE, Interval

_COUNTS_AT_ONCE = 1 << 20  # of clusters in resamples: bounds the memory
_MAX_UNDEFINED = 0.01  # of resamples without a task of a benchmark

Key = tuple[str, str]  # checkpoint, benchmark


@dataclass(frozen=True, kw_only=True, slots=True)
class Resampling:
    """How often, and with what luck."""

    num_resamples: int
    seed: int

    def __post_init__(self) -> None:
        if self.num_resamples < 100:
            raise ValueError(f"num_resamples={self.num_resamples} must be at least 100")


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusteredScores:
    """One benchmark's task scores of one checkpoint: fractions, and each task's cluster."""

    stratum: str  # benchmarks of one stratum share their clusters' names
    scores: Sequence[float]
    clusters: Sequence[str]

    def __post_init__(self) -> None:
        if len(self.scores) != len(self.clusters) or not self.scores:
            raise ValueError(
                f"{self.stratum}: {len(self.scores)} scores and {len(self.clusters)} clusters; "
                "expected as many, and at least one"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterSums:
    """The members of one stratum, summed by cluster; columns are in the order of the members."""

    sums_CB: npt.NDArray[np.float64]
    tasks_CB: npt.NDArray[np.float64]  # how many tasks each sum is of


def cluster_sums(members: Sequence[ClusteredScores]) -> ClusterSums:
    """Returns scores and tasks by cluster, clusters in the order of their names."""
    names = sorted({cluster for each in members for cluster in each.clusters})
    place = {cluster: index for index, cluster in enumerate(names)}
    sums_CB = np.zeros((len(names), len(members)))
    tasks_CB = np.zeros_like(sums_CB)
    for column, each in enumerate(members):
        places = [place[cluster] for cluster in each.clusters]
        np.add.at(sums_CB[:, column], places, np.asarray(each.scores, dtype=np.float64))
        np.add.at(tasks_CB[:, column], places, 1.0)
    return ClusterSums(sums_CB=sums_CB, tasks_CB=tasks_CB)


def resampled_scores(
    scored: Mapping[Key, ClusteredScores], resampling: Resampling
) -> dict[Key, npt.NDArray[np.float64]]:
    """Returns each score under every resample (R,); NaN in a resample that has none of its tasks.

    A stratum's draws depend on the seed, its name and its clusters, not on what else there is. Each
    deviation from the score is widened by the square root of C / (C - 1): among few clusters those
    drawn vary less than those that could have been there. So a score may leave 0 to 1 here.
    """
    strata: dict[str, dict[Key, ClusteredScores]] = {}
    for key, each in scored.items():
        strata.setdefault(each.stratum, {})[key] = each
    found: dict[Key, npt.NDArray[np.float64]] = {}
    for name, members in strata.items():
        found |= _resampled_stratum(name, members, resampling)
    return {key: found[key] for key in scored}


def _resampled_stratum(
    name: str, members: Mapping[Key, ClusteredScores], resampling: Resampling
) -> dict[Key, npt.NDArray[np.float64]]:
    summed = cluster_sums(list(members.values()))
    num_clusters = len(summed.sums_CB)
    parts = []
    for times_RC in _drawn(num_clusters, resampling.num_resamples, stratum_seed(name, resampling)):
        num_tasks_RB = times_RC @ summed.tasks_CB
        score_RB = np.full_like(num_tasks_RB, np.nan)
        np.divide(times_RC @ summed.sums_CB, num_tasks_RB, out=score_RB, where=num_tasks_RB > 0)
        parts.append(score_RB)
    score_B = summed.sums_CB.sum(axis=0) / summed.tasks_CB.sum(axis=0)
    widening = np.sqrt(num_clusters / max(1, num_clusters - 1))
    score_RB = score_B + widening * (np.concatenate(parts) - score_B)
    return {key: score_RB[:, column] for column, key in enumerate(members)}


def stratum_seed(name: str, resampling: Resampling) -> int:
    """Returns what a stratum's draws begin with: its own, whatever other strata there are."""
    return xxhash.xxh3_64_intdigest(f"{resampling.seed}:{name}".encode("utf-8", "surrogatepass"))


def _drawn(num_clusters: int, num_resamples: int, seed: int) -> Iterator[npt.NDArray[np.float64]]:
    """Yields how often each cluster is in each resample (R, C), some resamples at a time."""
    generator = np.random.default_rng(seed)
    at_once = max(1, _COUNTS_AT_ONCE // num_clusters)
    for start in range(0, num_resamples, at_once):
        shape = (min(at_once, num_resamples - start), num_clusters)
        drawn_RC = generator.integers(0, num_clusters, shape)
        drawn_RC += np.arange(shape[0])[:, np.newaxis] * num_clusters
        counts = np.bincount(drawn_RC.ravel(), minlength=drawn_RC.size)
        yield counts.reshape(shape).astype(np.float64)


def percentile_interval(values_R: npt.NDArray[np.float64]) -> Interval | None:
    """Returns the percentile interval of resampled values; None where too many are undefined."""
    defined_R = _defined(values_R)
    if defined_R is None:
        return None
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(defined_R, [tail, 1 - tail])
    return Interval(low=float(low), high=float(high))


def resampled_error(values_R: npt.NDArray[np.float64]) -> float | None:
    """Returns the standard error of resampled values; None where too many are undefined."""
    defined_R = _defined(values_R)
    return None if defined_R is None else float(np.std(defined_R, ddof=1))


def _defined(values_R: npt.NDArray[np.float64]) -> npt.NDArray[np.float64] | None:
    defined_R = values_R[~np.isnan(values_R)]
    return defined_R if len(defined_R) >= (1 - _MAX_UNDEFINED) * len(values_R) else None
