"""KMeans of weighted unit vectors whose result depends on nothing but its input and seed.

scikit-learn adds up its threads' partial sums in the order in which they happen to end. So every
start runs on one thread here, and it is the starts that are spread over threads.

Shapes: N points, D dimensions, K clusters.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import xxhash
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits  # sklearn brings it

from mira_megatron.grouping.unit_vectors import Floats, unit_rows

_MAX_COPIES_BYTES = 8 << 30

Indices = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Clusters:
    """Points in clusters, none of which is empty."""

    label_N: Indices
    centre_KD: Floats  # unit vectors
    similarity_N: Floats  # cosine of each point with the centre of its own cluster

    def members(self, cluster: int) -> Indices:
        """Returns the points of one cluster, in order."""
        return np.flatnonzero(self.label_N == cluster)

    def medoid(self, cluster: int) -> int:
        """Returns the point nearest to the cluster's centre, the first of several."""
        members = self.members(cluster)
        return int(members[self.similarity_N[members].argmax()])


def cluster(
    vector_ND: Floats,
    weight_N: NDArray[np.float64],
    num_clusters: int,
    *,
    num_starts: int,
    seed: Sequence[int],
    threads: int,
) -> Clusters:
    """Returns the best of `num_starts` KMeans solutions over unit vectors.

    There are fewer clusters than asked for where there are fewer different vectors.
    """
    num_clusters = _num_distinct(vector_ND, at_most=num_clusters)
    # scikit-learn copies the vectors for every start that is under way.
    threads = min(threads, num_starts, _MAX_COPIES_BYTES // max(1, vector_ND.nbytes))
    states = np.random.SeedSequence(seed).generate_state(num_starts)

    def start(state: int) -> KMeans:
        # Of OpenMP the limit is the calling thread's own, so it cannot be set once outside.
        with threadpool_limits(limits=1):
            kmeans = KMeans(num_clusters, n_init=1, random_state=int(state))
            return kmeans.fit(vector_ND, sample_weight=weight_N)

    # Of BLAS it is the whole process's: without this one, the first start to end would lift it.
    with threadpool_limits(limits=1):
        with ThreadPoolExecutor(max(1, threads)) as pool:
            best = min(pool.map(start, states), key=lambda kmeans: float(kmeans.inertia_))
        # Vectors that hardly differ can leave a cluster without a point.
        filled, label_N = np.unique(best.labels_, return_inverse=True)
        return _settled(vector_ND, label_N.astype(np.int64), best.cluster_centers_[filled])


def united(
    vector_ND: Floats,
    weight_N: NDArray[np.float64],
    clusters: Clusters,
    *,
    at_least: int,
    closer_than: float = -1.0,
) -> Clusters:
    """Returns the clusters after uniting, closest first, those whose centres are that close.

    It ends early when `at_least` clusters remain.
    """
    while len(clusters.centre_KD) > at_least:
        cosine_KK = clusters.centre_KD @ clusters.centre_KD.T
        cosine_KK[np.tril_indices(len(cosine_KK))] = -np.inf
        kept, gone = divmod(int(cosine_KK.argmax()), len(cosine_KK))
        if cosine_KK[kept, gone] < closer_than:
            break
        label_N = np.where(clusters.label_N == gone, kept, clusters.label_N)
        label_N -= label_N > gone
        centre_KD = np.delete(clusters.centre_KD, gone, axis=0)
        members = label_N == kept
        centre_KD[kept] = np.average(vector_ND[members], axis=0, weights=weight_N[members])
        clusters = _settled(vector_ND, label_N, centre_KD)
    return clusters


def _num_distinct(vector_ND: Floats, *, at_most: int) -> int:
    """Returns how many different rows there are, looking no further than `at_most`."""
    found: set[int] = set()
    for vector in vector_ND:
        found.add(xxhash.xxh3_64_intdigest(vector.tobytes()))
        if len(found) == at_most:
            break
    return len(found)


def _settled(vector_ND: Floats, label_N: Indices, centre_KD: Floats) -> Clusters:
    """Returns the labelled points as clusters: centres at length 1, similarities looked up."""
    centre_KD = unit_rows(centre_KD)
    similarity_NK = vector_ND @ centre_KD.T
    return Clusters(
        label_N=label_N,
        centre_KD=centre_KD,
        similarity_N=similarity_NK[np.arange(len(label_N)), label_N],
    )
