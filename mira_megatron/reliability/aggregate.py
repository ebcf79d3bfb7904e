"""Aggregate the ratings of a record into one score.

Reads   ratings/<rubric>/<source>/part-*.parquet: record_id, scores (15 of 0-10 or null), status,
        and model, prompt_key, answer_mode, which must be the same for all records of a source
Writes  record_scores/<scoring>/<source>/part-*.parquet: record_id, score 0-10 or null, reason
Keeps   part names, ids and order of the input; one output row per input record
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mira_megatron import layout
from mira_megatron.config import Recipe, check_name
from mira_megatron.corpus.recipe_sources import recipe_sources
from mira_megatron.manifest import Counts
from mira_megatron.records import NUM_SLOTS, RECORD_SCORE_SCHEMA
from mira_megatron.reliability.trimmed_mean import trimmed_mean
from mira_megatron.shards import map_shards, read_part, write_parquet
from mira_megatron.stage import Unit, WorkResult, Workspace

VERSION = 1
TOO_FEW_SLOTS = "too_few_slots"
# Scores of different scorers, prompts or answer modes are not on one scale.
_RATED_AS = ("model", "prompt_key", "answer_mode")


@dataclass(frozen=True, kw_only=True, slots=True)
class AggregateConfig:
    """Ratings -> one score per record."""

    scoring: str  # name of the score table made here
    trim_fraction: float  # cut from each end of the sorted slot scores, in [0, 0.5)
    min_slots: int  # a record with fewer scores gets none

    def __post_init__(self) -> None:
        check_name("scoring", self.scoring)
        if not 0 <= self.trim_fraction < 0.5:
            raise ValueError(f"trim_fraction={self.trim_fraction} must be in [0, 0.5)")
        if not 1 <= self.min_slots <= NUM_SLOTS:
            raise ValueError(f"min_slots={self.min_slots} must be in 1..{NUM_SLOTS}")


@dataclass(frozen=True, kw_only=True, slots=True)
class _PartTask:
    ratings: Path
    digest: str
    output: Path
    config: AggregateConfig


def units(recipe: Recipe) -> list[Unit]:
    """Returns one unit per source."""
    config = recipe.section("aggregate", AggregateConfig)
    return [
        Unit(
            stage="aggregate",
            name=source,
            folder=layout.record_scores(config.scoring, source),
            version=VERSION,
            config={
                "rubric": recipe.rubric,
                "trim_fraction": config.trim_fraction,
                "min_slots": config.min_slots,
            },
            upstream=(layout.ratings(recipe.rubric, source),),
            work="mira_megatron.reliability.aggregate:aggregate",
            settings=config,
        )
        for source in recipe_sources(recipe)
    ]


def aggregate(workspace: Workspace, config: AggregateConfig) -> WorkResult:
    """Writes the record scores of one source."""
    (upstream,) = workspace.unit.upstream
    tasks = [
        _PartTask(
            ratings=path,
            digest=part.digest,
            output=workspace.folder / part.path,
            config=config,
        )
        for path, part in workspace.upstream_parts(upstream, ".parquet")
    ]
    workers = workspace.resources.workers
    title = f"aggregate {workspace.unit.name}"
    counted = []
    rated_as: dict[tuple[str, ...], Path] = {}  # with the first part that holds such ratings
    parts = map_shards(_aggregate_part, tasks, workers=workers, title=title)
    for task, (part, found) in zip(tasks, parts, strict=True):
        counted.append(part)
        rated_as |= {each: task.ratings for each in found if each not in rated_as}
        _check_unmixed(rated_as)
    rows = {task.output.name: sum(part.values()) for task, part in zip(tasks, counted, strict=True)}
    reasons = sum(counted, Counter())
    num_scored = reasons.pop(None, 0)
    return WorkResult(
        counts=Counts(
            num_in=sum(rows.values()),
            num_out=sum(rows.values()),
            totals={
                "scored": num_scored,
                **{f"null: {reason}": num for reason, num in sorted(reasons.items()) if reason},
            },
        ),
        rows=rows,
    )


def _check_unmixed(rated_as: Mapping[tuple[str, ...], Path]) -> None:
    if len(rated_as) > 1:
        (one, where), (other, elsewhere), *_ = rated_as.items()
        raise ValueError(
            f"{elsewhere}: holds ratings of {_shown(other)}, and {where} ratings of {_shown(one)}. "
            "Scores of different scorers, prompts or answer modes are never mixed. Remove the "
            f"folder {elsewhere.parent} and run `mira score`, which rates all of it alike"
        )


def _shown(rated_as: tuple[str, ...]) -> str:
    return ", ".join(f"{name}={each}" for name, each in zip(_RATED_AS, rated_as, strict=True))


def _aggregate_part(task: _PartTask) -> tuple[Counter[str | None], list[tuple[str, ...]]]:
    """Returns how many records have which reason for having no score (None: they have one).

    And as what they were rated: each that occurs of `_RATED_AS`.
    """
    ratings = read_part(task.ratings, task.digest, ["record_id", "scores", "status", *_RATED_AS])
    rated_as = ratings.select(_RATED_AS).group_by(_RATED_AS, use_threads=False).aggregate([])
    found = [tuple(row[name] for name in _RATED_AS) for row in rated_as.to_pylist()]
    _check_unmixed(dict.fromkeys(found, task.ratings))
    table = score_ratings(ratings, task.config)
    if not task.output.is_file():
        write_parquet(task.output, table)
    return Counter(table["reason"].to_pylist()), found


def score_ratings(ratings: pa.Table, config: AggregateConfig) -> pa.Table:
    """Returns one RECORD_SCORE_SCHEMA row per rating, in order."""
    slots = ratings["scores"].combine_chunks().flatten()
    is_usable = pc.is_valid(slots).to_numpy(zero_copy_only=False).reshape(-1, NUM_SLOTS)
    scores = pc.fill_null(slots, 0.0).to_numpy(zero_copy_only=False).reshape(-1, NUM_SLOTS)
    if not ((scores >= 0) & (scores <= 10))[is_usable].all():
        wrong = scores[is_usable & ~((scores >= 0) & (scores <= 10))][0]
        raise ValueError(f"a slot's score is {wrong}; expected 0-10, or null where there is none")
    mean, has_mean = trimmed_mean(
        scores, is_usable, trim_fraction=config.trim_fraction, min_slots=config.min_slots
    )
    # A judge that gave nothing says why in its status; otherwise too few slots were answered.
    has_any = is_usable.any(axis=1)
    statuses = ratings["status"].to_pylist()
    reasons = [
        None if scored else TOO_FEW_SLOTS if answered or status == "ok" else status
        for scored, answered, status in zip(has_mean, has_any, statuses, strict=True)
    ]
    return pa.Table.from_arrays(
        [
            ratings["record_id"].combine_chunks(),
            pa.array(mean, pa.float32(), mask=np.logical_not(has_mean)),
            pa.array(reasons, pa.string()),
        ],
        schema=RECORD_SCORE_SCHEMA,
    )
