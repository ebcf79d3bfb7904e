"""Decide which anchors of a source count in a score table.

Reads   reliability/<rubric>/<source>/cells.parquet: agreement per anchor, with intervals
Writes  reliability_masks/<scoring>/<source>/cells.parquet: the same rows with decision (one of
        decisions.DECISIONS) and is_masked

Thresholds belong to a score table, as the trim fraction does: another threshold is another
`aggregate.scoring`, and nothing is asked of a scorer again.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import pyarrow as pa

from mira_megatron import layout
from mira_megatron.config import Recipe
from mira_megatron.manifest import Counts
from mira_megatron.reliability.cells import CELL_SCHEMA, Cell
from mira_megatron.reliability.decisions import (
    DECISIONS,
    Decision,
    ReliabilityConfig,
    decide,
    reliability_config,
)
from mira_megatron.shards import read_part, write_parquet
from mira_megatron.stage import Unit, WorkResult, Workspace

logger = logging.getLogger(__name__)

VERSION = 1
MASK_SCHEMA = CELL_SCHEMA.append(pa.field("decision", pa.string(), nullable=False)).append(
    pa.field("is_masked", pa.bool_(), nullable=False)
)
# Of the section: decide about the cells' bytes, which are an input here.
_OF_THE_CELLS = ("confidence", "resamples")
_CELL_FIELDS = tuple(field.name for field in fields(Cell))


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskSettings:
    """What one source's unit needs."""

    cells: str  # folder
    config: ReliabilityConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class DecidedCell:
    """A cell, and what becomes of its anchor."""

    cell: Cell
    decision: Decision


def masks_are_asked_for(recipe: Recipe) -> bool:
    """Whether the recipe has a section `reliability`; ValueError where it has nothing to go by."""
    if recipe.values.get("reliability") is None:
        return False
    if not {"label", "score"} <= set(recipe.values):
        raise ValueError(
            f"{recipe.path}: reliability: masks anchors by a scorer's agreement with labels held "
            "back from it, and the recipe does not have both sections `label` and `score`. Add "
            "them, or leave `reliability` out: then no anchor is masked"
        )
    return True


def masked_scoring(recipe: Recipe) -> str | None:
    """Returns the score table whose anchors the recipe masks; None where it masks none."""
    scoring = recipe.mapping("aggregate").get("scoring")
    return str(scoring) if scoring is not None and masks_are_asked_for(recipe) else None


def mask_units(recipe: Recipe, scoring: str, sources: Sequence[str]) -> list[Unit]:
    """Returns one unit per source."""
    config = reliability_config(recipe)
    thresholds = {
        name: value for name, value in asdict(config).items() if name not in _OF_THE_CELLS
    }
    return [
        Unit(
            stage="aggregate",
            name=f"{source} mask",
            folder=layout.reliability_mask(scoring, source),
            version=VERSION,
            config={"rubric": recipe.rubric, "reliability": thresholds},
            upstream=(layout.reliability(recipe.rubric, source),),
            work="mira_megatron.reliability.mask:write_mask",
            settings=MaskSettings(cells=layout.reliability(recipe.rubric, source), config=config),
        )
        for source in sources
    ]


def write_mask(workspace: Workspace, settings: MaskSettings) -> WorkResult:
    """Writes the decisions on one source's anchors."""
    found = [
        DecidedCell(cell=cell, decision=decide(cell, settings.config))
        for cell in (_cell(row) for row in _rows(workspace, settings.cells, CELL_SCHEMA))
    ]
    rows = [{**asdict(each.cell), **asdict(each.decision)} for each in found]
    write_parquet(workspace.folder / layout.CELLS, pa.Table.from_pylist(rows, schema=MASK_SCHEMA))
    decided = Counter(each.decision.decision for each in found)
    num_masked = sum(each.decision.is_masked for each in found)
    logger.info(
        "%s: %d of %d anchors masked (%s)",
        workspace.unit.label,
        num_masked,
        len(found),
        ", ".join(f"{name} {decided[name]}" for name in DECISIONS if decided[name]),
    )
    return WorkResult(
        counts=Counts(
            num_in=len(found),
            num_out=len(found) - num_masked,
            dropped={"masked": num_masked} if num_masked else {},
            totals={name: decided[name] for name in DECISIONS},
        ),
        rows={layout.CELLS: len(found)},
    )


def read_mask(workspace: Workspace, folder: str) -> list[DecidedCell]:
    """Returns the decisions of an upstream unit, in slot order."""
    return [
        DecidedCell(
            cell=_cell(row),
            decision=Decision(decision=row["decision"], is_masked=row["is_masked"]),
        )
        for row in _rows(workspace, folder, MASK_SCHEMA)
    ]


def _cell(row: Mapping[str, Any]) -> Cell:
    return Cell(**{name: row[name] for name in _CELL_FIELDS})


def _rows(workspace: Workspace, folder: str, schema: pa.Schema) -> list[dict[str, Any]]:
    """Returns the rows of an upstream unit's cells, one per slot."""
    ((path, part),) = workspace.upstream_parts(folder, layout.CELLS)
    rows: list[dict[str, Any]] = read_part(path, part.digest, schema.names).to_pylist()
    return rows
