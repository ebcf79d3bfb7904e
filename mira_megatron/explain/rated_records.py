"""A record's fifteen scores, and how they became its record score.

Reads   ratings/<rubric>/<source>/part-*.parquet, anchors/<rubric>/<group>/anchors.jsonl,
        record_scores/<scoring>/<source>/, and cells.parquet of reliability_masks/<scoring>/<source>
        or, where no mask was made, of reliability/<rubric>/<source>

Which settings a score was made with is told by its manifest, not by the recipe of today.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mira_megatron import layout
from mira_megatron.explain.located_records import LocatedRecord
from mira_megatron.explain.slots import COUNTED, MISSING, Arithmetic, slot_roles
from mira_megatron.manifest import Manifest, read_manifest
from mira_megatron.provenance.traced_records import UNSCORED, read_rows
from mira_megatron.records import NUM_SLOTS
from mira_megatron.rubric.anchor_files import read_draft

_RATING = (
    "scores",
    "rationales",
    "overall",
    "status",
    "reason",
    "model",
    "prompt_key",
    "answer_mode",
    "view_policy",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Reliability:
    """How far the scorer agrees with the teacher about one anchor on the record's source."""

    decision: str | None  # keep, masked, undecided, too_few; None where nothing is masked
    is_masked: bool
    n: int
    mae: float | None
    rho: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Slot:
    """One anchor's score and what became of it."""

    anchor_id: str
    name: str | None  # None where the anchors are gone
    score: float | None  # 0-10
    rationale: str | None
    part: str  # in the record score: counted, trimmed_low, trimmed_high, masked or missing
    reliability: Reliability | None


@dataclass(frozen=True, kw_only=True, slots=True)
class RatedRecord:
    """What the scorer said of a record."""

    status: str
    reason: str | None  # why the status is not ok
    model: str
    prompt_key: str
    answer_mode: str
    view_policy: str
    overall: float | None  # 0-100
    slots: tuple[Slot, ...]
    arithmetic: Arithmetic | None  # None where no score table was made of it


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredRecord:
    """A record's score in one table."""

    table: str
    score: float | None
    reason: str | None  # why there is none


def row_of(folder: Path, located: LocatedRecord, columns: Sequence[str]) -> dict[str, Any] | None:
    """Returns columns of a record out of a folder of parts, or None where it is not in there.

    A table in record order gives it at once; another is searched for the id.
    """
    paths = sorted(folder.glob("part-*.parquet"))
    if not paths:
        return None
    wanted = ["record_id", *columns]
    found = read_rows(paths, np.array([located.row]), wanted)
    if found.num_rows and found["record_id"][0].as_py() == located.record_id:
        return _only_row(found)
    for path in paths:
        ids = pq.read_table(path, columns=["record_id"])["record_id"]
        at = pc.index(ids, located.record_id).as_py()
        if at >= 0:
            return _only_row(read_rows([path], np.array([at]), wanted))
    return None


def scored_record(run_folder: Path, table: str, located: LocatedRecord) -> ScoredRecord | None:
    """Returns what a score table says of a record, None where its source is not in it."""
    folder = run_folder / layout.record_scores(table, located.source)
    if read_manifest(folder) is None:
        return None
    stored = row_of(folder, located, ["score", "reason"])
    if stored is None:
        return ScoredRecord(table=table, score=None, reason=UNSCORED)
    return ScoredRecord(table=table, score=stored["score"], reason=stored["reason"])


def rated_record(
    run_folder: Path, rubric: str, group: str | None, located: LocatedRecord, scoring: str | None
) -> RatedRecord | None:
    """Returns the rating of a record under a rubric, None where its source is not rated.

    `scoring` names the score table that is made of it; without that nothing is trimmed or masked.
    """
    rating = row_of(run_folder / layout.ratings(rubric, located.source), located, _RATING)
    if rating is None:
        return None
    cells = _cells(run_folder / layout.reliability(rubric, located.source))
    roles = [MISSING if score is None else COUNTED for score in rating["scores"]]
    arithmetic = None
    manifest = _aggregated(run_folder, rubric, located.source, scoring)
    if manifest is not None and scoring is not None:
        mask = layout.reliability_mask(scoring, located.source)
        if mask in manifest.inputs:
            cells = _cells(run_folder / mask)
        masked = [cells.get(f"A{number + 1}") for number in range(NUM_SLOTS)]
        roles, arithmetic = slot_roles(
            rating["scores"],
            [cell is not None and cell.is_masked for cell in masked],
            trim_fraction=manifest.config["trim_fraction"],
            min_slots=manifest.config["min_slots"],
        )
    names = _anchor_names(run_folder, rubric, group)
    return RatedRecord(
        **{name: rating[name] for name in _RATING if name not in ("scores", "rationales")},
        slots=tuple(
            Slot(
                anchor_id=f"A{number + 1}",
                name=names[number],
                score=rating["scores"][number],
                rationale=rating["rationales"][number],
                part=roles[number],
                reliability=cells.get(f"A{number + 1}"),
            )
            for number in range(NUM_SLOTS)
        ),
        arithmetic=arithmetic,
    )


def _only_row(table: pa.Table) -> dict[str, Any]:
    row: dict[str, Any] = table.to_pylist()[0]
    return row


def _aggregated(run_folder: Path, rubric: str, source: str, scoring: str | None) -> Manifest | None:
    """Returns the manifest of the score table that was made of the rubric's ratings."""
    if scoring is None:
        return None
    manifest = read_manifest(run_folder / layout.record_scores(scoring, source))
    return None if manifest is None or manifest.config.get("rubric") != rubric else manifest


def _anchor_names(run_folder: Path, rubric: str, group: str | None) -> Sequence[str | None]:
    path = run_folder / layout.anchors(rubric, group or "") / layout.ANCHORS
    if group is None or not path.is_file():
        return [None] * NUM_SLOTS
    return [anchor.name for anchor in read_draft(path)]


def _cells(folder: Path) -> dict[str, Reliability]:
    """Returns the reliability of each anchor of a source by the anchor's id; none if unmeasured."""
    path = folder / layout.CELLS
    if not path.is_file():
        return {}
    return {
        cell["anchor_id"]: Reliability(
            decision=cell.get("decision"),
            is_masked=cell.get("is_masked", False),
            n=cell["n"],
            mae=cell["mae"],
            rho=cell["rho"],
        )
        for cell in pq.read_table(path).to_pylist()
    }
