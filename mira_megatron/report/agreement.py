"""How far the scorer of each source agrees with the teacher, read from reliability/."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow.parquet as pq

from mira_megatron import layout
from mira_megatron.config import Recipe
from mira_megatron.manifest import Manifest, read_manifest
from mira_megatron.records import NUM_SLOTS
from mira_megatron.reliability.cells import Cell, follows
from mira_megatron.reliability.reliability import MIN_RHO


@dataclass(frozen=True, kw_only=True, slots=True)
class CellBounds:
    """How sure a cell is, and what follows; None where it was measured without that."""

    mae_low: float | None
    mae_high: float | None
    rho_low: float | None
    rho_high: float | None
    decision: str | None  # keep | masked | undecided | too_few
    is_masked: bool | None  # what follows of the decision: undecided cells may be, or not


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceAgreement:
    """One source's held-back records: what the scorer answered, and a cell per anchor."""

    source: str
    models: tuple[str, ...]  # who answered
    num_records: int
    num_ok: int  # answers read in full
    num_partial: int  # answers of which some slots could be read
    cells: tuple[Cell, ...]  # in slot order
    bounds: tuple[CellBounds, ...]  # likewise

    @property
    def followed(self) -> tuple[Cell, ...]:
        """Returns the anchors on which the scorer ranks as the teacher does."""
        return tuple(cell for cell in self.cells if follows(cell, MIN_RHO))

    @property
    def has_decisions(self) -> bool:
        """Returns whether it was decided which cells count."""
        return any(bounds.decision is not None for bounds in self.bounds)

    @property
    def num_masked(self) -> int:
        """Returns how many anchors are left out of the record scores, undecided ones included."""
        return sum(bool(bounds.is_masked) for bounds in self.bounds)

    @property
    def num_names_followed(self) -> int:
        """Returns how many names those anchors have: names may repeat."""
        return len({cell.anchor_name for cell in self.followed})

    @property
    def num_parsed(self) -> int:
        """Returns the answers that could be read, at least in part."""
        return self.num_ok + self.num_partial

    @property
    def answer_mode(self) -> str:
        """Returns how scores were read from the answers."""
        return self.cells[0].answer_mode

    @property
    def median_rho(self) -> float | None:
        """Returns the median Spearman over the anchors."""
        return self._median(cell.rho for cell in self.cells)

    @property
    def median_rho_of_length(self) -> float | None:
        """Returns the median size of the record's length's own Spearman over the anchors."""
        return self._median(abs(cell.rho_of_length or 0.0) for cell in self.cells)

    def _median(self, rhos: Iterable[float | None]) -> float | None:
        """Returns the median, None where no record was compared.

        An anchor without a correlation counts as 0: were it left out, a scorer that gives most
        anchors one score throughout would look better for it.
        """
        if not any(cell.n for cell in self.cells):
            return None
        return median(rho or 0.0 for rho in rhos)


def is_measured(recipe: Recipe) -> bool:
    """Returns whether a recipe compares its scorers with held-back labels."""
    return {"label", "score"} <= set(recipe.values)


def read_agreement(run_folder: Path, rubric: str, source: str) -> SourceAgreement | None:
    """Returns one source's agreement, or None where it was not measured yet."""
    folder = run_folder / layout.reliability(rubric, source)
    manifest = read_manifest(folder)
    if manifest is None:
        return None
    rows = pq.read_table(folder / layout.CELLS).to_pylist()
    return SourceAgreement(
        source=source,
        models=_models(folder, manifest),
        num_records=manifest.counts.num_out,
        num_ok=int(manifest.counts.totals.get("ok", 0)),
        num_partial=int(manifest.counts.totals.get("partial", 0)),
        cells=tuple(Cell(**_columns_of(Cell, row)) for row in rows),
        bounds=tuple(CellBounds(**_columns_of(CellBounds, row)) for row in rows),
    )


def with_decisions(agreement: SourceAgreement, run_folder: Path, scoring: str) -> SourceAgreement:
    """Returns the agreement with the decisions of a score table, where those are made already."""
    rows = _mask_rows(run_folder, scoring, agreement.source)
    if rows is None:
        return agreement
    bounds = tuple(CellBounds(**_columns_of(CellBounds, row)) for row in rows)
    return replace(agreement, bounds=bounds)


def read_masked_slots(run_folder: Path, scoring: str, source: str) -> list[bool]:
    """Returns which anchors of a source a score table leaves out, in slot order.

    None is left out of a table that was made without masks.
    """
    rows = _mask_rows(run_folder, scoring, source)
    return [False] * NUM_SLOTS if rows is None else [row["is_masked"] for row in rows]


def _mask_rows(run_folder: Path, scoring: str, source: str) -> list[dict[str, Any]] | None:
    """Returns the decisions that lie beside a score table, None where it has none of its own."""
    folder = run_folder / layout.reliability_mask(scoring, source)
    if read_manifest(folder) is None:
        return None
    rows: list[dict[str, Any]] = pq.read_table(folder / layout.CELLS).to_pylist()
    return rows


def _columns_of(row_type: type, row: dict[str, Any]) -> dict[str, Any]:
    """Returns what a row says of a type's fields; an older table says less."""
    return {field.name: row.get(field.name) for field in fields(row_type)}


def _models(folder: Path, manifest: Manifest) -> tuple[str, ...]:
    names: set[str] = set()
    for part in manifest.parts:
        if part.path.endswith(".parquet") and part.path != layout.CELLS:
            names.update(pq.read_table(folder / part.path, columns=["model"])["model"].to_pylist())
    return tuple(sorted(names))
