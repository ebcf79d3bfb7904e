"""The work behind `mira anchor`; apart from its units because it imports scikit-learn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mira_megatron import layout
from mira_megatron.atomic_files import write_bytes, write_json
from mira_megatron.endpoints import api_key
from mira_megatron.grouping.embedders import (
    embed,
)
from mira_megatron.grouping.unit_vectors import Floats
from mira_megatron.manifest import Counts
from mira_megatron.records import JUDGMENT_SCHEMA, NUM_SLOTS, Anchor
from mira_megatron.rubric.anchor import AnchorSettings, GivenSettings
from mira_megatron.rubric.anchor_clusters import FoundAnchors, find_anchors, parts_of
from mira_megatron.rubric.anchor_files import CLUSTERS, with_version, write_anchors
from mira_megatron.rubric.anchor_tables import rubric_markdown
from mira_megatron.rubric.dimension_names import name_fault, reason_fault
from mira_megatron.rubric.given_anchors import read_given
from mira_megatron.shards import read_part
from mira_megatron.stage import WorkResult, Workspace


def find(workspace: Workspace, settings: AnchorSettings) -> WorkResult:
    """Writes the anchors found in the judgments of a group's founders."""
    judgments = pa.concat_tables(
        [
            read_part(path, part.digest, JUDGMENT_SCHEMA.names)
            for folder in workspace.unit.upstream
            for path, part in workspace.upstream_parts(folder, ".parquet")
            if path.name.startswith("part-")
        ]
        or [JUDGMENT_SCHEMA.empty_table()]
    )
    usable, dropped = usable_judgments(judgments, settings.family)
    found = find_anchors(
        usable,
        settings.family,
        lambda texts: _embedded(workspace, settings, texts),
        settings.config,
        seed=settings.seed,
        threads=workspace.resources.workers,
        where=f"source group {settings.group}",
    )
    anchors = with_version(settings.rubric_name, found.anchors)
    clusters = _clusters_json(found, settings, anchors, len(usable))
    _write(workspace, settings.group, anchors, clusters)
    return WorkResult(
        counts=Counts(
            num_in=len(judgments),
            num_out=len(usable),
            dropped=dropped,
            totals={
                "anchors": len(anchors),
                "distinct strings": sum(slot.num_strings for slot in found.slots),
                "near duplicates": len(found.near_duplicates),
            },
        ),
        rows={layout.ANCHORS: len(anchors)},
    )


def adopt(workspace: Workspace, settings: GivenSettings) -> WorkResult:
    """Writes the anchors that the recipe gives for a group."""
    anchors = read_given(settings.given, name=settings.rubric_name, family=settings.family)
    clusters = {"group": settings.group, "rubric_version": anchors[0].rubric_version}
    _write(workspace, settings.group, anchors, clusters)
    return WorkResult(
        counts=Counts(num_in=NUM_SLOTS, num_out=len(anchors)),
        rows={layout.ANCHORS: len(anchors)},
    )


def usable_judgments(judgments: pa.Table, family: str) -> tuple[pa.Table, dict[str, int]]:
    """Returns the judgments whose words may stand in a prompt, and how many are not, by reason."""
    parts = parts_of(family)
    bad_names = {name for name in pc.unique(judgments["dimension"]).to_pylist() if name_fault(name)}
    is_dropped = [
        "part of another family"
        if part not in parts
        else "name unfit for a prompt"
        if name in bad_names
        else "reason unfit for a prompt"
        if reason_fault(reason)
        else None
        for part, name, reason in zip(
            *(judgments[column].to_pylist() for column in ("part", "dimension", "reason")),
            strict=True,
        )
    ]
    counts = Counter(why for why in is_dropped if why)
    usable = judgments.filter(pa.array([why is None for why in is_dropped], pa.bool_()))
    return usable, dict(sorted(counts.items()))


def _embedded(workspace: Workspace, settings: AnchorSettings, texts: Sequence[str]) -> Floats:
    key_name = settings.embedder.api_key_env
    return embed(
        texts,
        settings.embedder,
        seed=settings.seed,
        api_key=api_key(key_name, workspace.resources.secrets, "embedder"),
        cache_folder=workspace.scratch / "embeddings",
        fold_numbers=True,  # "3 of 4" and "7 of 9" are one thing to have said
    )


def _clusters_json(
    found: FoundAnchors, settings: AnchorSettings, anchors: Sequence[Anchor], num_judgments: int
) -> dict[str, Any]:
    return {
        "group": settings.group,
        "rubric_version": anchors[0].rubric_version,
        "founders": list(settings.founders),
        "num_judgments": num_judgments,
        "slots": [asdict(slot) for slot in found.slots],
        "near_duplicate_cosine": settings.config.near_duplicate_cosine,
        "near_duplicates": [asdict(pair) for pair in found.near_duplicates],
        "resamples": {
            part: [
                {
                    "num_strings": resample.num_strings,
                    "adjusted_rand": resample.adjusted_rand,
                    "names": sorted(resample.names),
                }
                for resample in outcomes
            ]
            for part, outcomes in found.resamples.items()
        },
    }


def _write(
    workspace: Workspace, group: str, anchors: Sequence[Anchor], clusters: Mapping[str, Any]
) -> None:
    write_anchors(workspace.folder / layout.ANCHORS, anchors)
    write_json(workspace.folder / CLUSTERS, clusters)
    page = rubric_markdown(group, anchors, clusters)
    write_bytes(workspace.folder / "anchors.md", page.encode())
