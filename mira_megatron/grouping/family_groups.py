"""The groups of one family: pinned sources as they are pinned, the others by what they are like.

Shapes: S sources, R records of a source, D dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mira_megatron.config import check_name
from mira_megatron.grouping.clustering import ClusterRules, Partition, partition, stability
from mira_megatron.grouping.group import GroupConfig, family_of_group, group_prefix
from mira_megatron.grouping.unit_vectors import Floats, cosine_matrix, mean_direction

_ROUNDING = 1e-5  # cosines that differ less are equal; two sources are always equally central
PINNED = "pinned"


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """Sources that share a rubric."""

    name: str
    sources: tuple[str, ...]  # sorted
    method: str  # PINNED, or one of group.BY


@dataclass(frozen=True, kw_only=True, slots=True)
class FamilyGroups:
    """The groups of a family, and what they rest on."""

    family: str
    sources: tuple[str, ...]  # sorted; all of the family
    num_records: tuple[int, ...]  # sampled, per source
    cosine_SS: NDArray[np.float64]
    groups: tuple[Group, ...]  # sorted by name
    clustered: tuple[str, ...]  # the sources whose groups were to be found
    rules: ClusterRules
    partition: Partition | None  # of `clustered`; None where there was nothing to cluster
    stability: float | None  # mean adjusted Rand index; None for fewer than two clustered sources
    num_resamples: int


def group_family(
    family: str,
    records: Mapping[str, Floats],
    *,
    pins: Mapping[str, str],
    config: GroupConfig,
    seed: int,
) -> FamilyGroups:
    """Returns the groups of a family's sources, given the vectors of each one's records, (R, D).

    Raises ValueError when more groups are asked for than there are sources to make them.
    """
    sources = tuple(sorted(records))
    directions = {source: mean_direction(records[source]) for source in sources}
    unpinned = tuple(source for source in sources if source not in pins)
    rules = ClusterRules(
        num_clusters=config.num_groups.get(family),
        min_silhouette=config.min_silhouette,
        min_cosine=config.min_cosine,
        seed=seed,
    )
    clustered = unpinned if config.by == "similarity" else ()
    found = _partition(family, clustered, directions, rules)
    agreement = None
    if found is not None and len(clustered) > 1 and config.num_resamples:
        vectors = [records[source] for source in clustered]
        agreement = stability(vectors, found, rules, num_resamples=config.num_resamples)
    groups = _pinned_groups(pins)
    for members in _member_lists(unpinned, config.by, found):
        name = _free(
            _made_name(family, members, config.by, directions), {group.name for group in groups}
        )
        groups.append(Group(name=name, sources=members, method=config.by))
    return FamilyGroups(
        family=family,
        sources=sources,
        num_records=tuple(len(records[source]) for source in sources),
        cosine_SS=cosine_matrix(np.stack([directions[source] for source in sources])),
        groups=tuple(sorted(groups, key=lambda group: group.name)),
        clustered=clustered,
        rules=rules,
        partition=found,
        stability=agreement,
        num_resamples=config.num_resamples,
    )


def central_cosines(directions: Sequence[Floats]) -> NDArray[np.float64]:
    """Returns the cosine of each direction with the mean of them all, shape (S,)."""
    member_SD = np.stack(directions).astype(np.float64)
    cosine_S: NDArray[np.float64] = member_SD @ mean_direction(np.stack(directions))
    return cosine_S


def _partition(
    family: str,
    clustered: Sequence[str],
    directions: Mapping[str, Floats],
    rules: ClusterRules,
) -> Partition | None:
    if not clustered:
        return None
    try:
        return partition(np.stack([directions[source] for source in clustered]), rules)
    except ValueError as error:
        raise ValueError(
            f"group.num_groups.{family}: {error} ({', '.join(clustered)}; pinned ones do not "
            "count). Ask for fewer"
        ) from error


def _pinned_groups(pins: Mapping[str, str]) -> list[Group]:
    members: dict[str, list[str]] = {}
    for source, group in sorted(pins.items()):
        members.setdefault(group, []).append(source)
    return [
        Group(name=name, sources=tuple(sources), method=PINNED) for name, sources in members.items()
    ]


def _member_lists(
    unpinned: Sequence[str], by: str, found: Partition | None
) -> list[tuple[str, ...]]:
    """Returns the sources of each group that is not pinned."""
    match by:
        case "similarity":
            labels: Sequence[int] = found.labels if found is not None else ()
        case "family":
            labels = [0] * len(unpinned)
        case _:
            labels = range(len(unpinned))
    members: dict[int, list[str]] = {}
    for source, label in zip(unpinned, labels, strict=True):
        members.setdefault(label, []).append(source)
    return [tuple(sources) for sources in members.values()]


def _made_name(
    family: str, members: Sequence[str], by: str, directions: Mapping[str, Floats]
) -> str:
    """Returns the family's name, or with that of the most central source: the first of equals."""
    prefix = group_prefix(family)
    if by == "family":
        return prefix
    cosine_S = central_cosines([directions[source] for source in members])
    central = members[int(np.argmax(cosine_S > cosine_S.max() - _ROUNDING))]
    name = f"{prefix}-{central}"
    # A source of family qa may be called with-think.
    return name if family_of_group(name) == family else f"{prefix}-source-{central}"


def _free(name: str, taken: set[str]) -> str:
    """Returns the name, with a number where it is taken."""
    check_name("source group", name)
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}-{number}"
    return free
