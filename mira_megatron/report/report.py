"""One page about a whole run, for people.

Reads   groups of every family; records, ratings, record_scores, tokens and reliability of every
        source; anchors, scorer, mode_agreement and retest of every group; keep, sensitivity,
        blends, checkpoints and instruction-tuned model of every arm: as far as the recipe makes
        them
Writes  report/index.html: self-contained, nothing fetched from elsewhere
        report/sources.csv: one row per arm and source
        report/answers.csv: one row per source group, where the recipe scores

All are functions of the files read: no times, no machine, no absolute paths.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mira_megatron import layout
from mira_megatron.config import Recipe
from mira_megatron.corpus.recipe_sources import recipe_sources
from mira_megatron.grouping.source_groups import families, group_of_source
from mira_megatron.reliability.mask import masked_scoring
from mira_megatron.report.agreement import is_measured
from mira_megatron.report.answers_section import (
    AskedGroup,
    asked_groups,
    read_folders,
    shown_settings,
)
from mira_megatron.report.sensitivity_section import masked_arms
from mira_megatron.stage import Unit
from mira_megatron.tokenization.adopted import adopted_sources

VERSION = 9


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportSettings:
    """What the page needs to know of the recipe."""

    recipe_name: str
    seed: int  # of the records shown as examples
    rubric: str
    groups: Mapping[str, str]  # source -> source group, of those with records
    families: Mapping[str, str]  # source -> family, of those with records
    grouped: tuple[str, ...]  # families whose groups were found here
    adopted: Mapping[str, tuple[str, ...]]  # source -> its score tables, of those without
    score_tables: Mapping[str, str]  # arm -> name of its record scores
    has_blend: bool  # selections may be handed over by another recipe
    has_training: bool  # a blend may be trained on elsewhere
    has_instruct: bool  # the arms' models are instruction-tuned here
    has_scorers: bool  # distilled here
    has_reliability: bool  # there are labels to compare the scorers with
    masking: str | None  # the score table whose anchors are masked by that
    asked: tuple[AskedGroup, ...]  # the groups that are scored here


def units(recipe: Recipe) -> list[Unit]:
    """Returns the one unit of the report; none where nothing rates the recipe's records."""
    if not has_page(recipe):
        return []
    settings = ReportSettings(
        recipe_name=recipe.path.stem,
        seed=recipe.seed,
        rubric=recipe.rubric,
        groups=group_of_source(recipe),
        families={name: config.family for name, (config, _) in recipe_sources(recipe).items()},
        grouped=families(recipe) if "group" in recipe.values else (),
        adopted={name: tuple(entry.scores) for name, entry in adopted_sources(recipe).items()},
        score_tables={arm: str(entry["score"]) for arm, entry in recipe.mapping("arms").items()},
        has_blend="blend" in recipe.values,
        has_training="midtrain" in recipe.values,
        has_instruct="instruct_sft" in recipe.values,
        has_scorers="distill" in recipe.values,
        has_reliability=is_measured(recipe),
        masking=masked_scoring(recipe),
        asked=asked_groups(recipe),
    )
    return [
        Unit(
            stage="report",
            name="page",
            folder=layout.REPORT,
            version=VERSION,
            config={"seed": recipe.seed},
            upstream=_upstream(settings),
            # Inputs, not settings: a renamed recipe gets its new name, not a refusal.
            raw_inputs={
                "recipe name": settings.recipe_name,
                "asked groups": shown_settings(settings.asked),
            },
            work="mira_megatron.report.page:write_report",
            settings=settings,
        )
    ]


def has_page(recipe: Recipe) -> bool:
    """Whether there is anything to tell: not of a base model to start from, or baselines alone."""
    return not recipe_sources(recipe) or bool({"score", "aggregate"} & set(recipe.values))


def _upstream(settings: ReportSettings) -> tuple[str, ...]:
    of_groups = [layout.anchors(settings.rubric, group) for group in settings.groups.values()]
    if settings.has_scorers:
        of_groups += [layout.scorer(settings.rubric, group) for group in settings.groups.values()]
    of_groups += read_folders(settings.asked)
    of_groups += [layout.groups(settings.rubric, family) for family in settings.grouped]
    of_sources = [
        folder
        for source in settings.groups
        for folder in (
            layout.records(source),
            layout.ratings(settings.rubric, source),
            *(layout.record_scores(table, source) for table in settings.score_tables.values()),
            layout.tokens(source),
        )
    ]
    of_sources += [layout.tokens(source) for source in settings.adopted]
    of_sources += [
        layout.record_scores(table, source)
        for source, tables in settings.adopted.items()
        for table in tables
        if table in settings.score_tables.values()
    ]
    if settings.has_reliability:
        of_sources += [layout.reliability(settings.rubric, source) for source in settings.groups]
    if settings.masking is not None:
        of_sources += [
            layout.reliability_mask(settings.masking, source) for source in settings.groups
        ]
    of_arms = [layout.keep(arm) for arm in settings.score_tables]
    if settings.has_blend:
        of_arms += [layout.blend(arm) for arm in settings.score_tables]
    masked = masked_arms(settings.score_tables, settings.masking)
    of_arms += [layout.sensitivity(arm) for arm in masked]
    if settings.has_training:
        of_arms += [layout.checkpoints(arm) for arm in settings.score_tables]
    if settings.has_instruct:
        of_arms += [layout.instruct(arm) for arm in settings.score_tables]
    return tuple(dict.fromkeys([*of_groups, *of_sources, *of_arms]))
