"""The rubric on the page: every source group with its sources and its fifteen anchors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mira_megatron import layout
from mira_megatron.records import Anchor
from mira_megatron.rubric.anchor_files import read_anchors


@dataclass(frozen=True, kw_only=True, slots=True)
class RubricGroup:
    """One source group; names, reasons and aliases were written by a teacher."""

    name: str
    sources: tuple[str, ...]
    anchors: tuple[Anchor, ...]


def read_rubric(
    run_folder: Path, rubric: str, group_of_source: Mapping[str, str]
) -> dict[str, RubricGroup]:
    """Returns the groups of these sources by name, in name order."""
    return {
        group: RubricGroup(
            name=group,
            sources=tuple(sorted(name for name, own in group_of_source.items() if own == group)),
            anchors=read_anchors(run_folder / layout.anchors(rubric, group) / layout.ANCHORS),
        )
        for group in sorted(set(group_of_source.values()))
    }
