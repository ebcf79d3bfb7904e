"""The record scores of one source under other reliability masks than its score table's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from mira_megatron import layout
from mira_megatron.reliability.scored_ratings import score_ratings
from mira_megatron.retention.candidates import SourceDocuments
from mira_megatron.retention.documents import in_document_order
from mira_megatron.shards import map_shards, read_part
from mira_megatron.stage import Workspace

Mask = tuple[bool, ...]  # by slot: whether its scores are left out


@dataclass(frozen=True, kw_only=True, slots=True)
class Scoring:
    """How the ratings of a recipe become record scores."""

    rubric: str
    trim_fraction: float
    min_slots: int


@dataclass(frozen=True, kw_only=True, slots=True)
class _PartTask:
    ratings: Path
    digest: str
    masks: tuple[Mask, ...]
    scoring: Scoring


def flipped_scores(
    workspace: Workspace, entry: SourceDocuments, masks: Sequence[Mask], scoring: Scoring
) -> list[pa.ChunkedArray]:
    """Returns per mask the scores (float32, 0-10 or null) of a source, row i of document i.

    A part of ratings is read once for all masks: with the rationales in it, reading is what costs.
    Raises ValueError where ratings and documents are not the same records.
    """
    folder = layout.ratings(scoring.rubric, entry.source)
    tasks = [
        _PartTask(ratings=path, digest=part.digest, masks=tuple(masks), scoring=scoring)
        for path, part in workspace.upstream_parts(folder, ".parquet")
    ]
    title = f"{workspace.unit.label}: {entry.source}"
    workers = workspace.resources.workers
    # In threads: reading and arithmetic are Arrow's and numpy's, and the columns are not copied.
    parts = list(map_shards(_scored_part, tasks, workers=workers, title=title, in_threads=True))
    where = workspace.run.folder / folder
    tokens = layout.tokens(entry.source)
    scores = in_document_order(where, pa.concat_tables(parts), entry.record_ids, tokens)
    return [scores[str(number)] for number in range(len(masks))]


def _scored_part(task: _PartTask) -> pa.Table:
    """Returns the records of a part, with a column of scores per mask, named by its number."""
    ratings = read_part(task.ratings, task.digest, ["record_id", "scores", "status"])
    columns = {"record_id": ratings["record_id"]}
    for number, is_masked in enumerate(task.masks):
        columns[str(number)] = score_ratings(
            ratings,
            trim_fraction=task.scoring.trim_fraction,
            min_slots=task.scoring.min_slots,
            is_masked=is_masked,
        )["score"]
    return pa.table(columns)


def with_scores(entry: SourceDocuments, scores: pa.ChunkedArray) -> SourceDocuments:
    """Returns a source's documents with other scores."""
    return replace(
        entry,
        scores_D=pc.fill_null(scores, 0.0).to_numpy(),
        is_scored_D=pc.is_valid(scores).to_numpy(),
    )
