"""Founds the source groups of one family: the work of `group` units that are named after one."""

from __future__ import annotations

import logging

from mira_megatron import layout
from mira_megatron.atomic_files import write_bytes, write_json
from mira_megatron.grouping.embedders import embedder_fingerprint
from mira_megatron.grouping.family_groups import group_family
from mira_megatron.grouping.group import FoundingSettings
from mira_megatron.grouping.grouping_report import groups_page, similarity
from mira_megatron.grouping.record_samples import (
    SAMPLE,
    draw_sample,
    sample_counts,
    sample_vectors,
)
from mira_megatron.shards import write_parquet
from mira_megatron.stage import WorkResult, Workspace

logger = logging.getLogger(__name__)


def found(workspace: Workspace, settings: FoundingSettings) -> WorkResult:
    """Writes the groups of a family, what they rest on, and the sample to hold later sources to."""
    sample = draw_sample(workspace, settings.sources, settings.sample)
    write_parquet(workspace.folder / SAMPLE, sample)
    grouped = group_family(
        settings.family,
        sample_vectors(workspace, sample, settings.sample),
        pins=settings.pins,
        config=settings.config,
        seed=settings.sample.seed,
    )
    entries = {
        group.name: {
            "family": settings.family,
            "sources": list(group.sources),
            "method": group.method,
        }
        for group in grouped.groups
    }
    write_json(
        workspace.folder / layout.SOURCE_GROUPS, {"rubric": settings.rubric, "groups": entries}
    )
    embedder = embedder_fingerprint(settings.sample.embedder)
    write_json(workspace.folder / "similarity.json", similarity(grouped, embedder))
    page = groups_page(settings.rubric, grouped, embedder)
    write_bytes(workspace.folder / "groups.md", page.encode())
    for group in grouped.groups:
        logger.info("%s: %s = %s", workspace.unit.label, group.name, ", ".join(group.sources))
    return WorkResult(
        counts=sample_counts(workspace, settings.sources, sample), rows={SAMPLE: sample.num_rows}
    )
