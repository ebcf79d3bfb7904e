"""`mira explain`: one record from raw file to blend, and why each arm keeps or drops it.

Reads   what the stages have written so far of the record's source; nothing is run or written

What is told is what was decided: settings come from manifests and certificates. Where the recipe
says otherwise by now, the arm's `state` tells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mira_megatron import layout
from mira_megatron.config import Recipe
from mira_megatron.explain.decided_records import Decided, decided
from mira_megatron.explain.located_records import LocatedRecord, locate
from mira_megatron.explain.placed_records import BlendPlace, TokenPlace, blend_place, token_place
from mira_megatron.explain.rated_records import (
    RatedRecord,
    ScoredRecord,
    rated_record,
    row_of,
    scored_record,
)
from mira_megatron.grouping.source_groups import NotYetKnown, group_of_source
from mira_megatron.pipeline import stage_units
from mira_megatron.reliability.aggregate import AggregateConfig
from mira_megatron.retention.arms import arm_configs
from mira_megatron.stage import Run, unit_state
from mira_megatron.tokenization.adopted import adopted_sources

WAITING = "waiting"  # the state of an arm that nothing is selected for yet
_RECORD = ("family", "content_hash", "num_chars", "origin", "meta")


@dataclass(frozen=True, kw_only=True, slots=True)
class RawRecord:
    """What ingest knows of a record; its text is not read."""

    family: str
    content_hash: str
    num_chars: int
    origin: str  # file and row
    meta: str | None  # JSON passed through


@dataclass(frozen=True, kw_only=True, slots=True)
class ArmExplanation:
    """What one arm made of a record."""

    arm: str
    state: str  # of the selection: done, waiting, unfinished, outdated, different
    decided: Decided | None  # None where the arm is not selected yet
    blend: BlendPlace | None  # None where its blend does not list the record, or is not made yet


@dataclass(frozen=True, kw_only=True, slots=True)
class Explanation:
    """All that the run knows of one record."""

    record_id: str
    source: str
    row: int  # among its source's records, from 0
    source_group: str | None  # None while it is not found
    is_adopted: bool
    record: RawRecord | None  # None of an adopted source
    rating: RatedRecord | None  # None while its source is not rated
    scores: tuple[ScoredRecord, ...]  # in each table the recipe makes, or an arm reads or read
    # Whether the rating's arithmetic gives the stored score; None where there is not both.
    is_score_reproduced: bool | None
    tokens: TokenPlace | None  # None while its source is not tokenised
    arms: tuple[ArmExplanation, ...]


def explain(recipe: Recipe, id_start: str, *, source: str | None = None) -> Explanation:
    """Returns what is known of the record with this id, or of the only one whose id begins so.

    Raises ValueError as `locate` does, and where files do not belong together.
    """
    located = locate(recipe, id_start, source=source)
    group = _group(recipe, located.source)
    scoring = _scoring(recipe)
    arms = _arms(recipe, located)
    scores = _scores(recipe, located, scoring, arms)
    rating = rated_record(recipe.run_folder, recipe.rubric, group, located, scoring)
    return Explanation(
        record_id=located.record_id,
        source=located.source,
        row=located.row,
        source_group=group,
        is_adopted=located.source in adopted_sources(recipe),
        record=_raw_record(recipe, located),
        rating=rating,
        scores=tuple(scores.values()),
        is_score_reproduced=_is_reproduced(rating, scores.get(scoring or "")),
        tokens=token_place(located),
        arms=arms,
    )


def _group(recipe: Recipe, source: str) -> str | None:
    adopted = adopted_sources(recipe)
    if source in adopted:
        return adopted[source].group or source
    try:
        return group_of_source(recipe)[source]
    except NotYetKnown:
        return None


def _scoring(recipe: Recipe) -> str | None:
    """Returns the score table that the recipe makes of its ratings."""
    if "aggregate" not in recipe.values:
        return None
    return recipe.section("aggregate", AggregateConfig).scoring


def _raw_record(recipe: Recipe, located: LocatedRecord) -> RawRecord | None:
    row = row_of(recipe.run_folder / layout.records(located.source), located, _RECORD)
    return None if row is None else RawRecord(**{name: row[name] for name in _RECORD})


def _scores(
    recipe: Recipe,
    located: LocatedRecord,
    scoring: str | None,
    explained: Sequence[ArmExplanation],
) -> dict[str, ScoredRecord]:
    arms = arm_configs(recipe).values() if recipe.mapping("arms") else ()
    tables = {*(arm.score for arm in arms), *([scoring] if scoring else [])}
    tables |= {arm.decided.score_table for arm in explained if arm.decided is not None}
    found = {table: scored_record(recipe.run_folder, table, located) for table in sorted(tables)}
    return {table: scored for table, scored in found.items() if scored is not None}


def _is_reproduced(rating: RatedRecord | None, stored: ScoredRecord | None) -> bool | None:
    if rating is None or rating.arithmetic is None or stored is None:
        return None
    return rating.arithmetic.score == stored.score


def _arms(recipe: Recipe, located: LocatedRecord) -> tuple[ArmExplanation, ...]:
    arms = arm_configs(recipe) if recipe.mapping("arms") else {}
    states = _selection_states(recipe) if arms else {}
    return tuple(
        ArmExplanation(
            arm=arm,
            state=states.get(arm, WAITING),
            decided=decided(recipe.run_folder, arm, located),
            blend=blend_place(recipe.run_folder, arm, located),
        )
        for arm in arms
    )


def _selection_states(recipe: Recipe) -> dict[str, str]:
    """Returns the state of each arm's selection; none while source groups are not found."""
    run = Run(folder=recipe.run_folder, reuse=recipe.reuse)
    try:
        return {unit.name: unit_state(unit, run) for unit in stage_units(recipe, "select")}
    except NotYetKnown:
        return {}
