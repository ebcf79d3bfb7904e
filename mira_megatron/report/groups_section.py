"""The source groups on the page: what each rests on, and how like each other its sources are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from mira_megatron import layout

_SIMILARITY = "similarity.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupedFamily:
    """One family: its groups as they were founded, and the cosines of its sources."""

    family: str
    embedder: str
    groups: tuple[FoundedGroup, ...]
    sources: tuple[str, ...]  # rows and columns of the matrix
    cosines: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundedGroup:
    """One group; sources that joined later are not in its cosines."""

    name: str
    method: str
    sources: tuple[str, ...]
    mean_cosine: float | None  # None: of one source
    lowest_cosine: float | None


def read_families(
    run_folder: Path, rubric: str, families: Sequence[str]
) -> tuple[GroupedFamily, ...]:
    """Returns the families that were grouped, in order."""
    return tuple(
        _family(
            family,
            orjson.loads((run_folder / layout.groups(rubric, family) / _SIMILARITY).read_bytes()),
        )
        for family in families
    )


def _family(family: str, found: Mapping[str, Any]) -> GroupedFamily:
    embedder = found["embedder"]
    return GroupedFamily(
        family=family,
        embedder=str(embedder.get("model") or embedder["engine"]).replace("_", " "),
        groups=tuple(
            FoundedGroup(
                name=name,
                method=group["method"],
                sources=tuple(group["sources"]),
                mean_cosine=group["mean_cosine"],
                lowest_cosine=group["lowest_cosine"],
            )
            for name, group in sorted(found["groups"].items())
        ),
        sources=tuple(found["sources"]),
        cosines=tuple(tuple(row) for row in found["cosines"]),
    )
