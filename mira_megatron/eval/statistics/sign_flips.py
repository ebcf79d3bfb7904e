"""The randomisation test of two checkpoints: differences under random signs of every cluster.

If it made no difference which of two checkpoints answered, each cluster's difference would be as
likely with the other sign. All benchmarks that share a cluster get the same sign, so averages over
benchmarks are tested with what hangs together kept. The test holds for few clusters, too, where the
bootstrap's p values are too small; McNemar's is the same test where each task is a cluster.

Shape letters: R draws, C clusters, B benchmarks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

from mira_megatron.eval.statistics.resampling import (
    ClusteredScores,
    Resampling,
    cluster_sums,
    stratum_seed,
)

_SIGNS_AT_ONCE = 1 << 20  # of clusters in draws: bounds the memory


def flipped_differences(
    first: Mapping[str, ClusteredScores],
    second: Mapping[str, ClusteredScores],
    resampling: Resampling,
) -> dict[str, npt.NDArray[np.float64]]:
    """Returns second - first of each benchmark under every draw of signs (R,), fractions.

    Benchmarks that only one of the two has are left out.
    """
    strata: dict[str, list[str]] = {}
    for name in first:
        if name in second:
            strata.setdefault(first[name].stratum, []).append(name)
    found: dict[str, npt.NDArray[np.float64]] = {}
    for stratum, names in strata.items():
        both = [*(first[name] for name in names), *(second[name] for name in names)]
        summed = cluster_sums(both)
        share_CB = summed.sums_CB / summed.tasks_CB.sum(axis=0)
        difference_CB = share_CB[:, len(names) :] - share_CB[:, : len(names)]
        signs = _signs(len(difference_CB), resampling, stratum_seed(stratum, resampling))
        flipped_RB = np.concatenate([signs_RC @ difference_CB for signs_RC in signs])
        found |= {name: flipped_RB[:, column] for column, name in enumerate(names)}
    return found


def _signs(
    num_clusters: int, resampling: Resampling, seed: int
) -> Iterator[npt.NDArray[np.float64]]:
    """Yields a sign for each cluster of each draw (R, C), some draws at a time."""
    generator = np.random.default_rng(seed)
    at_once = max(1, _SIGNS_AT_ONCE // num_clusters)
    for start in range(0, resampling.num_resamples, at_once):
        shape = (min(at_once, resampling.num_resamples - start), num_clusters)
        is_kept_RC = generator.integers(0, 2, shape, dtype=np.int8)
        yield 2.0 * is_kept_RC.astype(np.float64) - 1.0
