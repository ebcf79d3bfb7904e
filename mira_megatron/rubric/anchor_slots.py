"""A cluster's way to a slot: the anchor it becomes, and what else is known about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mira_megatron.grouping.unit_vectors import Floats
from mira_megatron.records import Anchor
from mira_megatron.rubric.anchor_references import medoid, references
from mira_megatron.rubric.judgment_points import Points
from mira_megatron.rubric.weighted_kmeans import Clusters

_NUM_ALIASES = 5
_DIGITS = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Slot:
    """What is known about one slot's cluster beside the anchor itself."""

    anchor_id: str
    name: str
    part: str | None
    cluster_size: int
    num_strings: int  # distinct ones
    mean_cosine: float  # of its judgments with its centre
    name_share: float | None  # of the resamples in which some cluster got the same name


@dataclass(frozen=True, kw_only=True, slots=True)
class NearDuplicate:
    """Two slots whose clusters have nearly the same centre."""

    anchor_ids: tuple[str, str]
    names: tuple[str, str]
    cosine: float


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundCluster:
    """One cluster on its way to a slot."""

    points: Points
    clusters: Clusters
    index: int
    size: int
    name_share: float | None

    @property
    def medoid(self) -> int:
        """Returns the point nearest to the centre."""
        return self.clusters.medoid(self.index)

    @property
    def name(self) -> str:
        """Returns the dimension of the medoid."""
        return self.points.dimension_U[self.medoid]


def anchor(anchor_id: str, one: FoundCluster, *, has_references: bool) -> Anchor:
    """Returns the cluster as an anchor, which has no version yet."""
    bare = Anchor(
        anchor_id=anchor_id,
        name=one.name,
        description=None,
        part=one.points.part,
        cluster_size=one.size,
        aliases=_aliases(one),
        medoid=medoid(one.points, one.medoid),
        references=(),
        rubric_version="",
    )
    if not has_references:
        return bare
    return replace(bare, references=references(one.points, one.clusters, one.index))


def _aliases(one: FoundCluster) -> tuple[tuple[str, int], ...]:
    """Returns the other names in the cluster with how many judgments bear them, most first."""
    counts: Counter[str] = Counter()
    for point in one.clusters.members(one.index):
        counts[one.points.dimension_U[point]] += int(one.points.weight_U[point])
    del counts[one.name]
    return tuple(sorted(counts.items(), key=lambda alias: (-alias[1], alias[0]))[:_NUM_ALIASES])


def slot(anchor: Anchor, one: FoundCluster) -> Slot:
    """Returns what is known about the anchor's cluster."""
    members = one.clusters.members(one.index)
    weight = one.points.weight_U[members]
    mean_cosine = np.average(one.clusters.similarity_N[members].astype(np.float64), weights=weight)
    return Slot(
        anchor_id=anchor.anchor_id,
        name=anchor.name,
        part=anchor.part,
        cluster_size=one.size,
        num_strings=len(members),
        mean_cosine=round(float(mean_cosine), _DIGITS),
        name_share=one.name_share,
    )


def near_duplicates(
    anchors: Sequence[Anchor], centre_KD: Floats, least_cosine: float
) -> tuple[NearDuplicate, ...]:
    """Returns the pairs of anchors whose clusters' centres are closer than that, closest first."""
    cosine_KK = centre_KD.astype(np.float64) @ centre_KD.T.astype(np.float64)
    pairs = [
        NearDuplicate(
            anchor_ids=(anchors[one].anchor_id, anchors[other].anchor_id),
            names=(anchors[one].name, anchors[other].name),
            cosine=round(float(cosine_KK[one, other]), _DIGITS),
        )
        for one, other in np.argwhere(np.triu(cosine_KK > least_cosine, k=1))
    ]
    return tuple(sorted(pairs, key=lambda pair: -pair.cosine))
