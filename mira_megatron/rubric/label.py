"""Have the teacher rate a larger sample of every source on the anchors of its group.

Reads   records/<source>/part-*.parquet, anchors/<rubric>/<group>/anchors.jsonl
Writes  teacher_ratings/<rubric>/<source>/part-*.parquet (records.TEACHER_RATING_SCHEMA)
Keeps   part names and order of records; parts without a sampled record have no file
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow.parquet as pq

from mira_megatron import layout
from mira_megatron.config import Recipe
from mira_megatron.corpus.recipe_sources import recipe_sources
from mira_megatron.grouping.source_groups import SourceGroup, source_groups
from mira_megatron.manifest import Counts
from mira_megatron.records import DISTILL, RELIABILITY
from mira_megatron.rubric.prompts import score_prompt_key
from mira_megatron.rubric.teacher import taught_stage
from mira_megatron.scoring.judge import Judge, judge_fingerprint
from mira_megatron.scoring.judged_parts import JudgedPart, sampled_parts
from mira_megatron.scoring.judging import judge_parts
from mira_megatron.scoring.rating import RatingForm, usable_anchors
from mira_megatron.stage import Unit, WorkResult, Workspace

logger = logging.getLogger(__name__)

VERSION = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelConfig:
    """How many records of a source the teacher rates, and how many of them are held back."""

    records_per_source: int  # at most
    reliability_fraction: float  # held back from the scorer, to be compared with it

    def __post_init__(self) -> None:
        if self.records_per_source < 1:
            raise ValueError(f"records_per_source={self.records_per_source} must be at least 1")
        if not 0 < self.reliability_fraction < 1:
            raise ValueError(f"reliability_fraction={self.reliability_fraction} must be in (0, 1)")


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelSettings:
    """What one source's unit needs."""

    source: str
    family: str
    anchors: str  # folder of its group's
    config: LabelConfig
    judge: Judge
    has_copies: bool


def units(recipe: Recipe) -> list[Unit]:
    """Returns one unit per source; none without a section `label`."""
    if "label" not in recipe.values:
        return []
    config, judge = taught_stage(recipe, "label", LabelConfig)
    return [
        _unit(recipe, config, judge, source, group)
        for group in source_groups(recipe).values()
        for source in group.members
    ]


def _unit(
    recipe: Recipe, config: LabelConfig, judge: Judge, source: str, group: SourceGroup
) -> Unit:
    anchors = layout.anchors(recipe.rubric, group.name)
    has_copies = recipe_sources(recipe)[source][0].degraded_copies > 0
    return Unit(
        stage="label",
        name=source,
        folder=layout.teacher_ratings(recipe.rubric, source),
        version=VERSION,
        config={
            **judge_fingerprint(judge),
            "answer_mode": judge.config.answer_mode,
            "prompt_key": score_prompt_key(group.family),
            "records_per_source": config.records_per_source,
            "reliability_fraction": config.reliability_fraction,
            "seed": recipe.seed,
            **({"split_by": "parent"} if has_copies else {}),
        },
        upstream=(layout.records(source), anchors),
        can_be_shared=True,
        work="mira_megatron.rubric.label:label",
        settings=LabelSettings(
            source=source,
            family=group.family,
            anchors=anchors,
            config=config,
            judge=judge,
            has_copies=has_copies,
        ),
    )


def label(workspace: Workspace, settings: LabelSettings) -> WorkResult:
    """Writes the teacher's ratings of one source's sample."""
    parts = sampled_parts(
        workspace,
        settings.source,
        settings.config.records_per_source,
        seed=settings.judge.seed,
        purpose="label",
    )
    path = workspace.run.folder / settings.anchors / layout.ANCHORS
    form = RatingForm(
        family=settings.family,
        anchors=usable_anchors(path, settings.family, settings.judge),
        judge=settings.judge,
        reliability_fraction=settings.config.reliability_fraction,
        has_copies=settings.has_copies,
    )
    judged = judge_parts(workspace, parts, form, settings.judge, workspace.sharing)
    outcomes: Counter[str] = sum(judged, Counter())
    halves = _halves(settings.source, parts)
    return WorkResult(
        counts=Counts(
            num_in=outcomes.total(),
            num_out=outcomes.total(),
            totals=dict(sorted((outcomes + halves).items())),
        ),
        rows={part.output.name: part.num_records for part in parts},
    )


def _halves(source: str, parts: Sequence[JudgedPart]) -> Counter[str]:
    """Returns how many records each half has; one that is empty is said, not filled.

    Moving a record would make its side depend on what else is in the sample.
    """
    halves: Counter[str] = Counter()
    for part in parts:
        halves.update(pq.read_table(part.output, columns=["split"])["split"].to_pylist())
    for half in (DISTILL, RELIABILITY):
        if halves[half] == 0:
            logger.warning(
                "label %s: of %d labelled records none is in the %s half. Raise "
                "label.records_per_source, or change label.reliability_fraction.",
                source,
                halves.total(),
                half,
            )
    return halves
