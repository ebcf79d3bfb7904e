"""Finds the founded group that a later source joins: the work of `group` units named `joined …`.

Its records and those that the founders were grouped by are embedded together. It joins the group of
its family whose mean is nearest, or the one it is pinned to.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from mira_megatron import layout
from mira_megatron.atomic_files import write_json
from mira_megatron.grouping.group import JoiningSettings
from mira_megatron.grouping.record_samples import (
    SAMPLE,
    SAMPLE_SCHEMA,
    draw_sample,
    sample_counts,
    sample_vectors,
)
from mira_megatron.grouping.unit_vectors import Floats, mean_direction
from mira_megatron.shards import read_part
from mira_megatron.stage import WorkResult, Workspace

logger = logging.getLogger(__name__)

_DECIMALS = 6  # of a cosine …
_ROUNDING = 1e-5  # … and what differs less is equal


def join(workspace: Workspace, settings: JoiningSettings) -> WorkResult:
    """Writes which group the source joins, and its cosine with every group of its family."""
    folder = layout.groups(settings.rubric, settings.family)
    founded = orjson.loads((workspace.run.folder / folder / layout.SOURCE_GROUPS).read_bytes())
    sources_of = {name: group["sources"] for name, group in sorted(founded["groups"].items())}
    _check_pin(settings, sources_of)
    ((path, part),) = workspace.upstream_parts(folder, SAMPLE)
    founders = read_part(path, part.digest, SAMPLE_SCHEMA.names)
    sample = draw_sample(workspace, [settings.source], settings.sample)
    vectors = sample_vectors(workspace, pa.concat_tables([founders, sample]), settings.sample)
    cosines = group_cosines(settings.source, vectors, sources_of)
    group = settings.pin or nearest_group(settings.source, cosines)
    entry: dict[str, Any] = {
        "source": settings.source,
        "group": group,
        "method": "pinned" if settings.pin else "nearest",
        "cosines": cosines,
    }
    write_json(workspace.folder / layout.SOURCE_GROUP, entry)
    logger.info("%s: %s (%s)", workspace.unit.label, group, entry["method"])
    return WorkResult(counts=sample_counts(workspace, [settings.source], sample))


def group_cosines(
    source: str, vectors: Mapping[str, Floats], sources_of: Mapping[str, list[str]]
) -> dict[str, float]:
    """Returns the cosine of a source's direction with that of every group's founders."""
    direction_of = {name: mean_direction(found) for name, found in vectors.items()}
    centre_of = {
        group: mean_direction(np.stack([direction_of[name] for name in sources]))
        for group, sources in sources_of.items()
    }
    return {
        group: round(float(direction_of[source] @ centre), _DECIMALS) + 0.0  # no -0.0
        for group, centre in centre_of.items()
    }


def nearest_group(source: str, cosines: Mapping[str, float]) -> str:
    """Returns the group with the highest cosine, the first by name of equals.

    Raises ValueError where the source has nothing in common with any group.
    """
    highest = max(cosines.values())
    group = min(name for name, cosine in cosines.items() if cosine > highest - _ROUNDING)
    if cosines[group] <= 0:
        raise ValueError(
            f"source {source} is like no founded group of its family (cosines {dict(cosines)}). "
            "Pin it to one with `group:` in its descriptor, or found new groups with rubric=NAME"
        )
    return group


def _check_pin(settings: JoiningSettings, sources_of: Mapping[str, list[str]]) -> None:
    if settings.pin is not None and settings.pin not in sources_of:
        raise ValueError(
            f"source {settings.source} is pinned to group {settings.pin}, but rubric "
            f"{settings.rubric} was founded with other groups of family {settings.family}: "
            f"{', '.join(sources_of)}. Pin it to one of these, take `group:` out of its descriptor "
            "to join the nearest, or found new groups with rubric=NAME"
        )
