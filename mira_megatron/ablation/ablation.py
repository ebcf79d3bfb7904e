"""All arms of a recipe in one table.

    ablation:
      reference: random   # the arm that others are compared with; default: random, if there is one
      resamples: 10000    # of documents and seeds, behind every interval

Reads   held_out/<model>/ of every arm and seed, keep/<arm>/, record_scores, tokens, records
        (languages), checkpoints/<model>/ (steps); with a section `eval` also eval/<model>/ of every
        arm and seed, and benchmark_hits/<source>/
Writes  ablation/table.json: every number
        ablation/table.md, table.tex, table.csv: the same for readers, papers and spreadsheets
        ablation/index.html: self-contained, nothing fetched from elsewhere

All are functions of the files read. How the intervals and tests come about: estimates.py. What the
arms took is no such function, and lies in cost/ (cost.py).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace

from mira_megatron import layout
from mira_megatron.config import Recipe, nearest
from mira_megatron.corpus.recipe_sources import recipe_sources
from mira_megatron.eval.contamination.source_hits import scanned_sources
from mira_megatron.eval.eval_config import SECTION as EVAL
from mira_megatron.grouping.source_groups import group_of_source
from mira_megatron.stage import Unit
from mira_megatron.tokenization.adopted import adopted_sources
from mira_megatron.training.held_out import held_out_models
from mira_megatron.training.trained_arms import SECTION, ablation_config, trained_name

VERSION = 3
DEFAULT_REFERENCE = "random"


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparedArm:
    """One row of the table."""

    name: str
    models: dict[int, str]  # seed -> name of its folders; the base has one for every seed
    score: str | None  # name of its record scores; None: the base, which keeps nothing
    evaluated: dict[int, str] = field(default_factory=dict)  # as models; empty: without benchmarks


@dataclass(frozen=True, kw_only=True, slots=True)
class AblationSettings:
    """What the table needs to know of the recipe."""

    recipe_name: str
    arms: tuple[ComparedArm, ...]
    seeds: tuple[int, ...]
    groups: dict[str, str]  # source -> source group, of all sources
    families: dict[str, str]  # source -> family, of those with records
    scanned: tuple[str, ...] | None  # sources looked through for benchmarks; None: for none
    reference: str | None  # None: nothing is compared
    resamples: int
    seed: int  # of the resamples


def units(recipe: Recipe) -> list[Unit]:
    """Returns the one unit of the table; none without the sections ablation and midtrain.

    Raises ValueError for a reference that is no arm.
    """
    if SECTION not in recipe.values or "midtrain" not in recipe.values:
        return []
    settings = ablation_settings(recipe)
    raw_inputs = {
        # Inputs, not settings: another reference makes the table anew, and a new arm is no refusal.
        "recipe name": settings.recipe_name,
        "reference": settings.reference or "",
        "resamples": str(settings.resamples),
        "seeds": json.dumps(settings.seeds),
        **{f"group of {source}": group for source, group in settings.groups.items()},
    }
    return [
        Unit(
            stage="ablation",
            name="table",
            folder=layout.ABLATION,
            version=VERSION,
            config={"seed": recipe.seed},
            upstream=_upstream(recipe, settings),
            raw_inputs=raw_inputs,
            work="mira_megatron.ablation.make_table:make_table",
            settings=settings,
        )
    ]


def ablation_settings(recipe: Recipe) -> AblationSettings:
    """Returns what is compared with what; ValueError for a reference that is no arm."""
    config = ablation_config(recipe)
    scores = {arm: str(entry["score"]) for arm, entry in recipe.mapping("arms").items()}
    models: dict[str, dict[int, str]] = {}
    for model in held_out_models(recipe):
        models.setdefault(model.arm, {})[model.seed] = model.name
    seeds = tuple(next((by_seed for arm, by_seed in models.items() if arm in scores), {}))
    adopted = {name: entry.group or name for name, entry in adopted_sources(recipe).items()}
    return AblationSettings(
        recipe_name=recipe.path.stem,
        arms=tuple(
            ComparedArm(
                name=arm,
                models=by_seed if arm in scores else dict.fromkeys(seeds, arm),
                score=scores.get(arm),
                evaluated=_evaluated(recipe, arm, by_seed, seeds) if EVAL in recipe.values else {},
            )
            for arm, by_seed in models.items()
        ),
        seeds=seeds,
        groups=dict(sorted({**group_of_source(recipe), **adopted}.items())),
        families={name: config.family for name, (config, _) in recipe_sources(recipe).items()},
        scanned=scanned_sources(recipe) if EVAL in recipe.values else None,
        reference=_reference(recipe, config.reference, list(models)),
        resamples=config.resamples,
        seed=recipe.seed,
    )


def without_lost(
    recipe: Recipe, settings: AblationSettings, lost: AbstractSet[str]
) -> AblationSettings:
    """Returns the settings of a table of those arms alone of which no folder is lost.

    An arm that lost an evaluation is without benchmarks, and where hits are lost nobody is told
    what arms have of benchmarks.
    """
    arms = tuple(
        replace(arm, evaluated={}) if not lost.isdisjoint(evaluation_folders(arm)) else arm
        for arm in settings.arms
        if lost.isdisjoint(arm_folders(recipe, arm))
    )
    names = [arm.name for arm in arms]
    reference = settings.reference if settings.reference in names else None
    scanned = settings.scanned
    if not lost.isdisjoint(map(layout.contamination, scanned or ())):
        scanned = None
    return replace(settings, arms=arms, reference=reference, scanned=scanned)


def _evaluated(
    recipe: Recipe, arm: str, by_seed: dict[int, str], seeds: Sequence[int]
) -> dict[int, str]:
    """Returns the model that is evaluated for each seed; a tuned base has one for each."""
    is_tuned = "instruct_sft" in recipe.values
    return {
        seed: by_seed.get(seed) or (trained_name(arm, seed, list(seeds)) if is_tuned else arm)
        for seed in seeds
    }


def _reference(recipe: Recipe, given: str | None, arms: Sequence[str]) -> str | None:
    if given is None:
        return DEFAULT_REFERENCE if DEFAULT_REFERENCE in arms else None
    if given not in arms:
        raise ValueError(
            f"{recipe.path}: {SECTION}.reference: no arm {given!r}.{nearest(given, arms)}"
        )
    return given


def _upstream(recipe: Recipe, settings: AblationSettings) -> tuple[str, ...]:
    folders = [layout.tokens(source) for source in settings.groups]
    folders += [layout.records(source) for source in settings.families]
    folders += [layout.contamination(source) for source in settings.scanned or ()]
    for arm in settings.arms:
        folders += [*arm_folders(recipe, arm), *evaluation_folders(arm)]
    return tuple(dict.fromkeys(folders))


def evaluation_folders(arm: ComparedArm) -> list[str]:
    """Returns the folders that an arm's scores on benchmarks are read from."""
    return [layout.evaluation(model) for model in dict.fromkeys(arm.evaluated.values())]


def arm_folders(recipe: Recipe, arm: ComparedArm) -> list[str]:
    """Returns the folders that one row of the table is read from, but for tokens and benchmarks."""
    folders = [layout.held_out(model) for model in arm.models.values()]
    if arm.score is None:
        return folders
    folders.append(layout.keep(arm.name))
    folders += [layout.checkpoints(model) for model in arm.models.values()]
    scored = [
        *recipe_sources(recipe),
        *(name for name, entry in adopted_sources(recipe).items() if arm.score in entry.scores),
    ]
    return [*folders, *(layout.record_scores(arm.score, source) for source in scored)]
