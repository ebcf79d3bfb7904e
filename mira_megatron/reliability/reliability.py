"""Have the scorer answer the records held back from it, and compare it with the teacher.

Reads   records/<source>/part-*.parquet, teacher_ratings/<rubric>/<source>/part-*.parquet (the
        reliability half), anchors/<rubric>/<group>/anchors.jsonl, and the group's scorer
Writes  reliability/<rubric>/<source>/part-*.parquet: the scorer's ratings of those records
        reliability/<rubric>/<source>/cells.parquet: per anchor n, mean absolute error and
        Spearman's rank correlation with bootstrap intervals, the correlation of the record's
        length alone, and how the ratings were made (cells.CELL_SCHEMA)
Keeps   part names and order of records; parts without such a record have no file
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from mira_megatron import layout
from mira_megatron.config import Recipe
from mira_megatron.grouping.source_groups import source_groups
from mira_megatron.manifest import Counts
from mira_megatron.records import NUM_SLOTS, RELIABILITY
from mira_megatron.reliability.cells import CELL_SCHEMA, Cell, RatedAs, cells, follows
from mira_megatron.reliability.decisions import resampling
from mira_megatron.reliability.intervals import Resampling
from mira_megatron.rubric.prompts import score_prompt_key
from mira_megatron.scoring.group_scorer import GroupScorer, group_scorer, rating_form
from mira_megatron.scoring.judged_parts import JudgedPart
from mira_megatron.scoring.judging import judge_parts
from mira_megatron.scoring.rating import RatingForm
from mira_megatron.shards import read_part, write_parquet
from mira_megatron.stage import Unit, WorkResult, Workspace

logger = logging.getLogger(__name__)

VERSION = 3
MIN_RHO = 0.4  # what the log counts as followed; it decides nothing


@dataclass(frozen=True, kw_only=True, slots=True)
class ReliabilitySettings:
    """What one source's unit needs."""

    rubric: str
    source: str
    scorer: GroupScorer
    resampling: Resampling


def units(recipe: Recipe) -> list[Unit]:
    """Returns one unit per source; none where there are no labels to compare with."""
    if "label" not in recipe.values:
        return []
    intervals = resampling(recipe)
    scorers = {group.name: group_scorer(recipe, group) for group in source_groups(recipe).values()}
    return [
        Unit(
            stage="reliability",
            name=source,
            folder=layout.reliability(recipe.rubric, source),
            version=VERSION,
            config=scorers[group.name].fingerprinted,
            # Inputs, so that others have the cells made anew of the same answers, not refused.
            raw_inputs={
                f"intervals.{name}": str(value) for name, value in asdict(intervals).items()
            },
            upstream=(
                layout.records(source),
                layout.teacher_ratings(recipe.rubric, source),
                *scorers[group.name].upstream,
            ),
            raw_files=scorers[group.name].raw_files,
            can_be_shared=True,
            work="mira_megatron.reliability.reliability:reliability",
            settings=ReliabilitySettings(
                rubric=recipe.rubric,
                source=source,
                scorer=scorers[group.name],
                resampling=intervals,
            ),
        )
        for group in source_groups(recipe).values()
        for source in group.members
    ]


def reliability(workspace: Workspace, settings: ReliabilitySettings) -> WorkResult:
    """Writes the scorer's ratings of one source's held-back records, and the cells."""
    labels = _held_back(workspace, settings)
    form = rating_form(workspace, settings.scorer)
    parts = _parts(workspace, settings.source, set(labels))
    judged = judge_parts(workspace, parts, form, form.judge, workspace.sharing)
    outcomes: Counter[str] = sum(judged, Counter())
    found = _compare(settings, form, labels, parts)
    write_parquet(
        workspace.folder / layout.CELLS,
        pa.Table.from_pylist([asdict(cell) for cell in found], schema=CELL_SCHEMA),
    )
    _log(settings, found)
    num_followed = sum(follows(cell, MIN_RHO) for cell in found)
    return WorkResult(
        counts=Counts(
            num_in=len(labels),
            num_out=outcomes.total(),
            totals={**dict(sorted(outcomes.items())), "anchors followed": num_followed},
        ),
        rows={**{part.output.name: part.num_records for part in parts}, layout.CELLS: len(found)},
    )


def _held_back(
    workspace: Workspace, settings: ReliabilitySettings
) -> dict[str, tuple[float | None, ...]]:
    """Returns the teacher's scores by record id, of the reliability half alone."""
    folder = layout.teacher_ratings(settings.rubric, settings.source)
    labels: dict[str, tuple[float | None, ...]] = {}
    for path, part in workspace.upstream_parts(folder, ".parquet"):
        table = read_part(path, part.digest, ["record_id", "scores", "split"])
        for row in table.to_pylist():
            if row["split"] == RELIABILITY:
                labels[row["record_id"]] = tuple(row["scores"])
    return labels


def _parts(workspace: Workspace, source: str, wanted: set[str]) -> list[JudgedPart]:
    """Returns the parts of records that hold one of the wanted."""
    parts = []
    for path, part in workspace.upstream_parts(layout.records(source), ".parquet"):
        ids = read_part(path, part.digest, ["record_id"])["record_id"].to_pylist()
        here = wanted.intersection(ids)
        if here:
            parts.append(
                JudgedPart(
                    records=path,
                    digest=part.digest,
                    output=workspace.folder / part.path,
                    record_ids=frozenset(here),
                    num_records=len(here),
                )
            )
    found = sum(part.num_records for part in parts)
    if found < len(wanted):
        raise ValueError(
            f"{workspace.folder}: {len(wanted) - found:,} of {len(wanted):,} held-back labels rate "
            f"records that {layout.records(source)} does not hold. Run all stages with `mira run`."
        )
    return parts


def _compare(
    settings: ReliabilitySettings,
    form: RatingForm,
    labels: dict[str, tuple[float | None, ...]],
    parts: list[JudgedPart],
) -> list[Cell]:
    rated: dict[str, tuple[float | None, ...]] = {}
    num_chars: dict[str, int] = {}
    for part in parts:
        rated |= _column(part.output, "scores")
        num_chars |= _column(part.records, "num_chars")
    ids = sorted(rated)
    return cells(
        _array([labels[record_id] for record_id in ids]),
        _array([rated[record_id] for record_id in ids]),
        np.array([num_chars[record_id] for record_id in ids], np.int64),
        anchors=form.anchors,
        source=settings.source,
        group=settings.scorer.group,
        rated_as=RatedAs(  # as the form writes it into every rating
            model=form.judge.model,
            prompt_key=score_prompt_key(form.family, form.judge.form),
            answer_mode=form.judge.config.answer_mode,
        ),
        resampling=settings.resampling,
    )


def _column(path: Path, name: str) -> dict[str, Any]:
    table = pq.read_table(path, columns=["record_id", name])
    return dict(zip(table["record_id"].to_pylist(), table[name].to_pylist(), strict=True))


def _array(scores: list[tuple[float | None, ...]]) -> npt.NDArray[np.float64]:
    """Returns scores as (records, slots), NaN where there is none."""
    return np.array(scores, np.float64).reshape(-1, NUM_SLOTS)


def _log(settings: ReliabilitySettings, found: list[Cell]) -> None:
    for cell in found:
        logger.info(
            "reliability %s: %s %s: n %d, mean absolute error %s [%s, %s], Spearman %s [%s, %s] "
            "(length alone %s)%s",
            settings.source,
            cell.anchor_id,
            cell.anchor_name,
            cell.n,
            *map(_shown, (cell.mae, cell.mae_low, cell.mae_high)),
            *map(_shown, (cell.rho, cell.rho_low, cell.rho_high)),
            _shown(cell.rho_of_length),
            f": {cell.reason}" if cell.reason else "",
        )
    followed = {cell.anchor_name for cell in found if follows(cell, MIN_RHO)}
    logger.info(
        "reliability %s: ranked as the teacher does (Spearman of at least %g and more than length "
        "alone gives): %d anchors, %d names",
        settings.source,
        MIN_RHO,
        sum(follows(cell, MIN_RHO) for cell in found),
        len(followed),
    )


def _shown(value: float | None) -> str:
    return "none" if value is None else f"{value:.2f}"
