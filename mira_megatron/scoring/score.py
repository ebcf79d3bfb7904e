"""Score every record on the anchors of its source group.

Reads   records/<source>/part-*.parquet, anchors/<rubric>/<group>/anchors.jsonl
Writes  ratings/<rubric>/<source>/part-*.parquet (records.RATING_SCHEMA)
Keeps   part names, ids and order of the input; one row per record, failures included
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from mira_megatron import layout
from mira_megatron.config import Recipe
from mira_megatron.grouping.source_groups import SourceGroup, source_groups
from mira_megatron.manifest import Counts
from mira_megatron.rubric.prompts import score_prompt_key
from mira_megatron.scoring.judging import (
    Judge,
    all_parts,
    judge_fingerprint,
    judge_parts,
    make_judge,
)
from mira_megatron.scoring.model_size import check_model_size
from mira_megatron.scoring.rating import ANSWER_MODE, RatingForm, usable_anchors
from mira_megatron.scoring.scorers import (
    ScorerConfig,
    check_calibrated,
    scorer_config,
    scorer_judge,
)
from mira_megatron.stage import Unit, WorkResult, Workspace

VERSION = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreSettings:
    """What one source's unit needs."""

    source: str
    family: str
    anchors: str  # folder of its group's
    judge: Judge
    scorer: ScorerConfig
    model_path: Path | None


def units(recipe: Recipe) -> list[Unit]:
    """Returns one unit per source."""
    return [
        unit for group in source_groups(recipe).values() for unit in _units_of_group(recipe, group)
    ]


def _units_of_group(recipe: Recipe, group: SourceGroup) -> list[Unit]:
    judge = make_judge(recipe, scorer_judge(recipe, group.name))
    scorer = scorer_config(recipe, group.name)
    anchors = layout.anchors(recipe.rubric, group.name)
    return [
        Unit(
            stage="score",
            name=source,
            folder=layout.ratings(recipe.rubric, source),
            version=VERSION,
            config={
                **judge_fingerprint(judge),
                "answer_mode": ANSWER_MODE,
                "prompt_key": score_prompt_key(group.family),
            },
            upstream=(layout.records(source), anchors),
            work="mira_megatron.scoring.score:score",
            settings=ScoreSettings(
                source=source,
                family=group.family,
                anchors=anchors,
                judge=judge,
                scorer=scorer,
                model_path=recipe.path_of(scorer.model_path) if scorer.model_path else None,
            ),
        )
        for source in group.members
    ]


def score(workspace: Workspace, settings: ScoreSettings) -> WorkResult:
    """Writes the ratings of one source."""
    path = workspace.run.folder / settings.anchors / layout.ANCHORS
    anchors = usable_anchors(path, settings.family, settings.judge)
    check_calibrated(settings.scorer, anchors, path)
    if settings.model_path is not None:
        check_model_size(settings.model_path)
    form = RatingForm(family=settings.family, anchors=anchors, judge=settings.judge)
    parts = all_parts(workspace, settings.source)
    outcomes: Counter[str] = sum(judge_parts(workspace, parts, form, settings.judge), Counter())
    return WorkResult(
        counts=Counts(
            num_in=outcomes.total(),
            num_out=outcomes.total(),
            totals=dict(sorted(outcomes.items())),
        ),
        rows={part.output.name: part.num_records for part in parts},
    )
