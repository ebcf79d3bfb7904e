"""What the groups of a family rest on: `similarity.json`, and `groups.md` for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from mira_megatron.grouping.clustering import ALIKE, ALONE, GIVEN, SILHOUETTE, UNLIKE
from mira_megatron.grouping.family_groups import PINNED, FamilyGroups, Group
from mira_megatron.written_tables import markdown_table, markdown_text

_DECIMALS = 6


def similarity(grouped: FamilyGroups, embedder: Mapping[str, Any]) -> dict[str, Any]:
    """Returns every number behind the groups, as JSON; what does not exist is null."""
    found = grouped.partition
    return {
        "family": grouped.family,
        "embedder": dict(embedder),
        "sources": list(grouped.sources),
        "num_records": dict(zip(grouped.sources, grouped.num_records, strict=True)),
        "cosines": [[_rounded(cosine) for cosine in row] for row in grouped.cosine_SS],
        "groups": {group.name: _inside(grouped, group) for group in grouped.groups},
        "clustering": found
        and {
            "sources": list(grouped.clustered),
            "num_groups": len(set(found.labels)),
            "chosen_by": found.chosen_by,
            "silhouettes": {str(k): _rounded(score) for k, score in found.silhouettes.items()},
            "mean_cosine": _rounded(found.mean_cosine),
            "min_silhouette": grouped.rules.min_silhouette,
            "min_cosine": grouped.rules.min_cosine,
        },
        "stability": {
            "adjusted_rand_index": _rounded(grouped.stability),
            "num_resamples": grouped.num_resamples,
        },
    }


def groups_page(rubric: str, grouped: FamilyGroups, embedder: Mapping[str, Any]) -> str:
    """Returns the groups of a family as Markdown: members, why, and how alike all sources are."""
    model = f" ({markdown_text(str(embedder['model']))})" if embedder["model"] else ""
    lines = [
        f"# Source groups: rubric {markdown_text(rubric)}, family {markdown_text(grouped.family)}",
        "",
        f"Each source is the mean direction of its sampled records, embedded by "
        f"{markdown_text(str(embedder['engine']))}{model} in {embedder['dimensions']} dimensions.",
        "",
        *_group_table(grouped),
        "",
        "## Why these groups",
        "",
        *_reasons(grouped),
        "",
        "## How alike the sources are",
        "",
        "Cosines of their directions; those inside a group are bold.",
        "",
        *_cosine_table(grouped),
        "",
    ]
    return "\n".join(lines)


def _inside(grouped: FamilyGroups, group: Group) -> dict[str, Any]:
    """Returns how alike the members of a group are; null for a single one."""
    cosines = _cosines_inside(grouped, group)
    return {
        "sources": list(group.sources),
        "method": group.method,
        "mean_cosine": _rounded(float(np.mean(cosines))) if cosines else None,
        "lowest_cosine": _rounded(min(cosines)) if cosines else None,
    }


def _cosines_inside(grouped: FamilyGroups, group: Group) -> list[float]:
    places = [grouped.sources.index(source) for source in group.sources]
    return [
        float(grouped.cosine_SS[first, second])
        for first in places
        for second in places
        if first < second
    ]


def _group_table(grouped: FamilyGroups) -> list[str]:
    sampled = dict(zip(grouped.sources, grouped.num_records, strict=True))
    rows = []
    for group in grouped.groups:
        inside = _inside(grouped, group)
        members = [f"{markdown_text(name)} ({sampled[name]:,})" for name in group.sources]
        cosines = [_shown(inside["mean_cosine"]), _shown(inside["lowest_cosine"])]
        rows.append([markdown_text(group.name), ", ".join(members), *cosines, group.method])
    header = ["group", "sources (records sampled)", "mean cosine inside", "lowest", "formed by"]
    return markdown_table(header, rows)


def _reasons(grouped: FamilyGroups) -> Iterator[str]:
    pinned = [group for group in grouped.groups if group.method == PINNED]
    if pinned:
        yield "* Pinned by descriptors: " + ", ".join(markdown_text(group.name) for group in pinned)
    found = grouped.partition
    if found is None:
        made = sorted({group.method for group in grouped.groups} - {PINNED})
        if made:
            yield f"* The recipe asks for one group per {made[0]}; nothing was clustered."
        return
    num_sources, num_groups = len(grouped.clustered), len(set(found.labels))
    yield f"* {_reason(grouped, found.chosen_by, num_sources, num_groups)}"
    if found.silhouettes:
        yield "* Silhouettes (cosine; 1 is perfect, 0 means that groups run into each other):"
        yield ""
        header = ["groups", *(str(k) for k in found.silhouettes)]
        yield from markdown_table(
            header, [["silhouette", *map(_shown, found.silhouettes.values())]]
        )
        yield ""
    if grouped.stability is None:
        yield "* Stability: not measured, it takes two sources to cluster and a resample."
    else:
        yield (
            f"* Stability: adjusted Rand index {grouped.stability:.3f}, the mean over "
            f"{grouped.num_resamples} resamples of each source's records (1: always these groups)."
        )


def _reason(grouped: FamilyGroups, chosen_by: str, num_sources: int, num_groups: int) -> str:
    found, rules = grouped.partition, grouped.rules
    assert found is not None
    best = max(found.silhouettes.values(), default=None)
    no_clusters = (
        f"no number of groups has a silhouette of at least {rules.min_silhouette} "
        f"(best {_shown(best)})"
        if best is not None
        else "two sources cannot be clustered"
    )
    compared = f"their mean cosine is {_shown(found.mean_cosine)}, and {rules.min_cosine} is asked"
    sources, groups = f"{num_sources} sources", f"{num_groups} groups"
    reasons = {
        ALONE: "One source, so one group.",
        GIVEN: f"{sources} in {groups}, as the recipe asks.",
        SILHOUETTE: f"{sources} in {groups}: best silhouette {_shown(best)}.",
        ALIKE: f"{sources} in one group: {no_clusters}; {compared}.",
        UNLIKE: f"{sources}, a group each: {no_clusters}; {compared}.",
    }
    return reasons[chosen_by]


def _cosine_table(grouped: FamilyGroups) -> list[str]:
    group_of = {source: group.name for group in grouped.groups for source in group.sources}
    header = ["", "source", *(str(number + 1) for number in range(len(grouped.sources)))]
    rows = []
    for number, (source, cosines) in enumerate(
        zip(grouped.sources, grouped.cosine_SS, strict=True)
    ):
        cells = [
            f"**{cosine:.3f}**" if group_of[source] == group_of[other] else f"{cosine:.3f}"
            for other, cosine in zip(grouped.sources, cosines, strict=True)
        ]
        rows.append([str(number + 1), markdown_text(source), *cells])
    return markdown_table(header, rows)


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(float(value), _DECIMALS) + 0.0  # no -0.0
