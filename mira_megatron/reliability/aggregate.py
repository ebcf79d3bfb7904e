"""Aggregate the ratings of a record into one score.

Reads   ratings/<rubric>/<source>/part-*.parquet: record_id, scores (15 of 0-10 or null), status,
        and model, prompt_key, answer_mode, which must be the same for all records of a source; of
        a recipe with a section `reliability` reliability_masks/<scoring>/<source>/cells.parquet,
        whose masked anchors do not count; it must be of ratings made in the same way
Writes  record_scores/<scoring>/<source>/part-*.parquet: record_id, score 0-10 or null, reason
Keeps   part names, ids and order of the input; one output row per input record
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mira_megatron import layout
from mira_megatron.config import Recipe, check_name
from mira_megatron.corpus.recipe_sources import recipe_sources
from mira_megatron.manifest import Counts
from mira_megatron.records import NUM_SLOTS
from mira_megatron.reliability.cells import RatedAs
from mira_megatron.reliability.mask import (
    DecidedCell,
    mask_units,
    masks_are_asked_for,
    read_mask,
)
from mira_megatron.reliability.scored_ratings import UNMASKED, score_ratings
from mira_megatron.shards import map_shards, read_part, write_parquet
from mira_megatron.stage import Unit, WorkResult, Workspace

logger = logging.getLogger(__name__)

VERSION = 2
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
    is_masked: tuple[bool, ...]  # by slot


@dataclass(frozen=True, kw_only=True, slots=True)
class AggregateSettings:
    """What one source's unit needs."""

    config: AggregateConfig
    source: str
    ratings: str  # folder
    mask: str | None  # folder; None: every slot counts


def units(recipe: Recipe) -> list[Unit]:
    """Returns one unit per source, after those that decide which of its anchors count, if any."""
    config = recipe.section("aggregate", AggregateConfig)
    sources = list(recipe_sources(recipe))
    is_masked = masks_are_asked_for(recipe)
    masks = mask_units(recipe, config.scoring, sources) if is_masked else []
    return [*masks, *(_unit(recipe, config, source, is_masked) for source in sources)]


def _unit(recipe: Recipe, config: AggregateConfig, source: str, is_masked: bool) -> Unit:
    ratings = layout.ratings(recipe.rubric, source)
    mask = layout.reliability_mask(config.scoring, source) if is_masked else None
    return Unit(
        stage="aggregate",
        name=source,
        folder=layout.record_scores(config.scoring, source),
        version=VERSION,
        config={
            "rubric": recipe.rubric,
            "trim_fraction": config.trim_fraction,
            "min_slots": config.min_slots,
            "reliability_mask": is_masked,
        },
        upstream=(ratings, *([mask] if mask else [])),
        work="mira_megatron.reliability.aggregate:aggregate",
        settings=AggregateSettings(config=config, source=source, ratings=ratings, mask=mask),
    )


def aggregate(workspace: Workspace, settings: AggregateSettings) -> WorkResult:
    """Writes the record scores of one source.

    Raises ValueError for ratings that were not all made in one way, that of the mask's cells.
    """
    mask = read_mask(workspace, settings.mask) if settings.mask else []
    tasks = [
        _PartTask(
            ratings=path,
            digest=part.digest,
            output=workspace.folder / part.path,
            config=settings.config,
            is_masked=tuple(each.decision.is_masked for each in mask) or UNMASKED,
        )
        for path, part in workspace.upstream_parts(settings.ratings, ".parquet")
    ]
    workers = workspace.resources.workers
    title = f"aggregate {workspace.unit.name}"
    counted = []
    rated_as: dict[RatedAs, Path] = {}  # with the first part that holds such ratings
    parts = map_shards(_aggregate_part, tasks, workers=workers, title=title)
    for task, (part, found) in zip(tasks, parts, strict=True):
        counted.append(part)
        rated_as |= {each: task.ratings for each in found if each not in rated_as}
        _check_unmixed(rated_as)
    _check_measured(workspace, settings, mask, rated_as)
    _warn_of_mask(settings, mask)
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


def _check_unmixed(rated_as: Mapping[RatedAs, Path]) -> None:
    if len(rated_as) > 1:
        (one, where), (other, elsewhere), *_ = rated_as.items()
        raise ValueError(
            f"{elsewhere}: holds ratings of {other}, and {where} ratings of {one}. "
            "Scores of different scorers, prompts or answer modes are never mixed. Remove the "
            f"folder {elsewhere.parent} and run `mira score`, which rates all of it alike"
        )


def _check_measured(
    workspace: Workspace,
    settings: AggregateSettings,
    mask: Sequence[DecidedCell],
    rated_as: Mapping[RatedAs, Path],
) -> None:
    if not mask:
        return
    assert settings.mask is not None
    measured = mask[0].cell.rated_as  # all of them are of the same ratings
    for found, where in rated_as.items():
        if found != measured:
            cells = workspace.run.folder / settings.mask / layout.CELLS
            raise ValueError(
                f"{where}: holds ratings of {found}, and {cells} says how far {measured} agrees "
                "with the teacher. A mask is for ratings made in the same way alone. Rate both "
                "alike: `mira reliability`, then `mira score`, of one recipe; or leave the section "
                "`reliability` out, and no anchor is masked"
            )


def _warn_of_mask(settings: AggregateSettings, mask: Sequence[DecidedCell]) -> None:
    num_left = NUM_SLOTS - sum(each.decision.is_masked for each in mask)
    if num_left < settings.config.min_slots:
        left = f"only {num_left} of {NUM_SLOTS} anchors are" if num_left else "no anchor is"
        logger.warning(
            "aggregate %s: %s left by its reliability mask, and min_slots is %d: no record of it "
            "gets a score. Lower min_slots, loosen the thresholds under another aggregate.scoring, "
            "or have a scorer that follows its teacher here",
            settings.source,
            left,
            settings.config.min_slots,
        )


def _aggregate_part(task: _PartTask) -> tuple[Counter[str | None], list[RatedAs]]:
    """Returns how many records have which reason for having no score (None: they have one).

    And as what they were rated, each that occurs.
    """
    ratings = read_part(task.ratings, task.digest, ["record_id", "scores", "status", *_RATED_AS])
    rated_as = ratings.select(_RATED_AS).group_by(_RATED_AS, use_threads=False).aggregate([])
    found = [RatedAs(**{name: row[name] for name in _RATED_AS}) for row in rated_as.to_pylist()]
    _check_unmixed(dict.fromkeys(found, task.ratings))
    table = score_ratings(
        ratings,
        trim_fraction=task.config.trim_fraction,
        min_slots=task.config.min_slots,
        is_masked=task.is_masked,
    )
    if not task.output.is_file():
        write_parquet(task.output, table)
    reasons = table["reason"].value_counts().to_pylist()
    return Counter({each["values"]: each["counts"] for each in reasons}), found
