"""Score every record on the anchors of its source group.

A group whose answer mode is not `full` may have that mode measured first (mode_agreement.py), and
one whose judge samples is asked about a few of its records again afterwards (retest.py).

Reads   records/<source>/part-*.parquet, anchors/<rubric>/<group>/anchors.jsonl, and where the
        recipe distils its scorers scorers/<rubric>/<group>
Writes  ratings/<rubric>/<source>/part-*.parquet (records.RATING_SCHEMA)
Keeps   part names, ids and order of the input; one row per record, failures included
"""

from __future__ import annotations

from dataclasses import dataclass

from mira_megatron import layout
from mira_megatron.config import Recipe
from mira_megatron.grouping.source_groups import SourceGroup, source_groups
from mira_megatron.scoring.group_scorer import GroupScorer, group_scorer, rating_form
from mira_megatron.scoring.judging import judge_source
from mira_megatron.scoring.mode_agreement import check_mode, mode_units
from mira_megatron.scoring.retest import retest_units
from mira_megatron.stage import Unit, WorkResult, Workspace

VERSION = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreSettings:
    """What one source's unit needs."""

    source: str
    scorer: GroupScorer


def units(recipe: Recipe) -> list[Unit]:
    """Returns one unit per source, those of a group after that of its answer mode, if any.

    What decides nothing, asking again, is the last to cost anything.
    """
    groups = source_groups(recipe).values()
    scorers = {group.name: group_scorer(recipe, group) for group in groups}
    scored = [
        unit for group in groups for unit in _units_of_group(recipe, group, scorers[group.name])
    ]
    again = [
        unit
        for group in groups
        for unit in retest_units(
            scorers[group.name],
            group.members,
            ratings=[layout.ratings(recipe.rubric, source) for source in group.members],
        )
    ]
    return [*scored, *again]


def _units_of_group(recipe: Recipe, group: SourceGroup, scorer: GroupScorer) -> list[Unit]:
    of_sources = [
        Unit(
            stage="score",
            name=source,
            folder=layout.ratings(recipe.rubric, source),
            version=VERSION,
            config=scorer.fingerprinted,
            upstream=(layout.records(source), *scorer.upstream),
            raw_files=scorer.raw_files,
            can_be_shared=True,
            can_be_reparsed=True,
            work="mira_megatron.scoring.score:score",
            settings=ScoreSettings(source=source, scorer=scorer),
        )
        for source in group.members
    ]
    return [*mode_units(scorer, group.members), *of_sources]


def score(workspace: Workspace, settings: ScoreSettings) -> WorkResult:
    """Writes the ratings of one source; ValueError where its answer mode agrees too little."""
    check_mode(workspace.run.folder, settings.scorer)
    form = rating_form(workspace, settings.scorer)
    return judge_source(workspace, settings.source, form, form.judge)
