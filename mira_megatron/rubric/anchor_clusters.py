"""Judgments -> anchors: cluster what was said, name each cluster by its most central judgment.

A group has 15 anchors; a group of family qa_with_think has five for each part of its records, which
are clustered apart. Slots go by cluster size, largest first, within each part.

Nothing is read or written here, and the result depends on neither the order of the judgments nor
the number of threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
from threadpoolctl import threadpool_limits  # sklearn brings it

from mira_megatron.records import NUM_SLOTS, PARTS_OF_THINK, Anchor
from mira_megatron.rubric.anchor_config import AnchorConfig
from mira_megatron.rubric.anchor_slots import (
    FoundCluster,
    NearDuplicate,
    Slot,
    anchor,
    near_duplicates,
    slot,
)
from mira_megatron.rubric.anchor_stability import Resample, name_share, resamples
from mira_megatron.rubric.judgment_points import Embed, Points, points_by_part, too_few
from mira_megatron.rubric.weighted_kmeans import Clusters, cluster, united


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundAnchors:
    """A group's anchors, without a version yet, and what their clusters looked like."""

    anchors: tuple[Anchor, ...]
    slots: tuple[Slot, ...]
    near_duplicates: tuple[NearDuplicate, ...]  # closest first
    resamples: dict[str, list[Resample]]  # by part; "all" where there are no parts


def find_anchors(
    judgments: pa.Table,
    family: str,
    embed: Embed,
    config: AnchorConfig,
    *,
    seed: int,
    threads: int,
    where: str,
) -> FoundAnchors:
    """Returns the anchors of a group's judgments (JUDGMENT_SCHEMA); `where` names it in errors.

    Raises ValueError where there are too few different judgments to make the anchors from.
    """
    parts = parts_of(family)
    num_clusters = NUM_SLOTS // len(parts)
    found: list[FoundCluster] = []
    outcomes: dict[str, list[Resample]] = {}
    for number, points in enumerate(
        points_by_part(judgments, parts, embed, least=num_clusters, where=where)
    ):
        with threadpool_limits(limits=1):
            clusters = _cluster(points, num_clusters, config, (seed, number), threads)
        num_found = len(clusters.centre_KD)
        if num_found < num_clusters:
            what = "judgments that differ once embedded"
            raise too_few(where, points.part, what, num_found, num_clusters)
        again = resamples(
            points,
            clusters,
            num_resamples=config.num_resamples,
            max_strings=config.max_resample_strings,
            num_starts=config.num_starts,
            seed=(seed, number, 1),
            threads=threads,
        )
        outcomes[points.part or "all"] = again
        found += _by_size(points, clusters, again)
    return _assembled(found, outcomes, config)


def parts_of(family: str) -> tuple[str | None, ...]:
    """Returns the parts whose judgments are clustered apart, in the order of their slots."""
    return PARTS_OF_THINK if family == "qa_with_think" else (None,)


def _cluster(
    points: Points, num_clusters: int, config: AnchorConfig, seed: Sequence[int], threads: int
) -> Clusters:
    """Returns the clusters of a part.

    To unite near duplicates and still fill all slots, the part is clustered again, with more
    clusters, until enough of them remain apart. Where twice as many do not suffice, everything said
    is alike: then the closest are united until there is one per slot. Without near duplicates the
    setting changes nothing.
    """
    number = num_clusters
    while True:
        clusters = cluster(
            points.vector_UD,
            points.weight_U,
            number,
            num_starts=config.num_starts,
            seed=seed,
            threads=threads,
        )
        if not config.merge_near_duplicates:
            return clusters
        merge = partial(united, points.vector_UD, points.weight_U)
        apart = merge(clusters, at_least=1, closer_than=config.near_duplicate_cosine)
        num_missing = num_clusters - len(apart.centre_KD)
        if num_missing <= 0:
            return merge(apart, at_least=num_clusters)
        if len(clusters.centre_KD) < number or number == 2 * num_clusters:
            return merge(clusters, at_least=num_clusters)
        number = min(number + num_missing, 2 * num_clusters)


def _by_size(points: Points, clusters: Clusters, again: Sequence[Resample]) -> list[FoundCluster]:
    """Returns a part's clusters, largest first, then by the text of their medoids."""
    size_K = np.bincount(clusters.label_N, weights=points.weight_U).astype(np.int64)
    found = [
        FoundCluster(
            points=points,
            clusters=clusters,
            index=index,
            size=int(size),
            name_share=name_share(again, points.dimension_U[clusters.medoid(index)]),
        )
        for index, size in enumerate(size_K)
    ]
    # Points are sorted by text, so a point's number stands for its text.
    return sorted(found, key=lambda one: (-one.size, one.medoid))


def _assembled(
    found: Sequence[FoundCluster], outcomes: dict[str, list[Resample]], config: AnchorConfig
) -> FoundAnchors:
    by_size = sorted(range(len(found)), key=lambda number: (-found[number].size, number))
    calibrated = set(by_size[: config.num_reference_anchors])
    anchors = tuple(
        anchor(f"A{number + 1}", one, has_references=number in calibrated)
        for number, one in enumerate(found)
    )
    centre_KD = np.stack([one.clusters.centre_KD[one.index] for one in found])
    return FoundAnchors(
        anchors=anchors,
        slots=tuple(slot(made, one) for made, one in zip(anchors, found, strict=True)),
        near_duplicates=near_duplicates(anchors, centre_KD, config.near_duplicate_cosine),
        resamples=outcomes,
    )
