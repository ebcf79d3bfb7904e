"""What each arm of a recipe chooses from, and what says so: settings, inputs, candidates, choice.

For the stages that choose: `select`, and `sensitivity`, which chooses again under other scores.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mira_megatron import layout
from mira_megatron.config import Recipe, nearest
from mira_megatron.corpus.recipe_sources import recipe_sources
from mira_megatron.grouping.source_groups import group_of_source
from mira_megatron.reliability.mask import masked_scoring
from mira_megatron.retention.arms import (
    ArmConfig,
    arm_configs,
    check_sources,
    fingerprinted_arm,
)
from mira_megatron.retention.candidates import SourceDocuments, scored_documents
from mira_megatron.retention.choosing import Choice, EarlierChoice, choose
from mira_megatron.retention.documents import SharedTables
from mira_megatron.retention.outside_masks import OutsideMask, mask_digests, outside_masks
from mira_megatron.stage import Workspace
from mira_megatron.tokenization.adopted import UNSCORED_PIN, adopted_sources
from mira_megatron.tokenization.token_dataset import read_token_dataset


@dataclass(frozen=True, kw_only=True, slots=True)
class SelectSettings:
    """What one arm's choice needs."""

    arm: str
    config: ArmConfig
    seed: int
    groups: Mapping[str, str]  # source -> source group, of the sources that are ranked
    where: str  # in which recipe the arm stands, for messages
    pinned: tuple[str, ...] = ()  # sources that are kept whole
    left_out: tuple[str, ...] = ()  # sources that are not trained on
    masked: tuple[str, ...] = ()  # ranked sources of whose scores a reliability mask decided
    masks: tuple[OutsideMask, ...] = ()
    shared: SharedTables = field(default_factory=SharedTables, repr=False, compare=False)


def select_settings(recipe: Recipe) -> list[SelectSettings]:
    """Returns the settings of every arm, each after the arms it goes without."""
    arms = arm_configs(recipe)
    groups = group_of_source(recipe)
    shared = SharedTables()
    return [_settings(recipe, name, arms[name], groups, shared) for name in arms]


def _check_score(recipe: Recipe, arm: str, config: ArmConfig, groups: Mapping[str, str]) -> None:
    """Raises ValueError for a score that no source has: all would be pinned, or left out."""
    known = {name for source in adopted_sources(recipe).values() for name in source.scores}
    if not groups and config.score not in known:
        tail = nearest(config.score, known) if known else " None of its sources has scores."
        raise ValueError(f"{recipe.path}: arms.{arm}.score: no score {config.score!r}.{tail}")


def _settings(
    recipe: Recipe, arm: str, config: ArmConfig, groups: Mapping[str, str], shared: SharedTables
) -> SelectSettings:
    _check_score(recipe, arm, config, groups)
    where = f"{recipe.path}: arms.{arm}"
    adopted = adopted_sources(recipe)
    unscored = {name: entry for name, entry in adopted.items() if config.score not in entry.scores}
    scored = {name: entry.group or name for name, entry in adopted.items() if name not in unscored}
    ranked = {**groups, **scored}
    check_sources(where, config, set(ranked), set(unscored))
    not_ranked = {*config.pinned, *config.excluded}
    pinned = {name for name, entry in unscored.items() if entry.unscored == UNSCORED_PIN}
    pinned = (pinned | set(config.pinned)) - set(config.excluded)
    own = recipe_sources(recipe) if config.score == masked_scoring(recipe) else {}
    return SelectSettings(
        arm=arm,
        config=config,
        seed=recipe.seed,
        groups={name: ranked[name] for name in sorted(ranked) if name not in not_ranked},
        where=where,
        pinned=tuple(sorted(pinned)),
        left_out=tuple(sorted((set(unscored) | set(config.excluded)) - pinned)),
        masked=tuple(name for name in sorted(ranked) if name in own and name not in not_ranked),
        masks=outside_masks(recipe, where, config.with_masks),
        shared=shared,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class ChoiceInputs:
    """What decides an arm's choice, as a unit states it."""

    config: Mapping[str, Any]
    upstream: tuple[str, ...]
    raw_inputs: Mapping[str, str]
    raw_files: Callable[[], Mapping[str, str]] | None


def choice_inputs(recipe: Recipe, settings: SelectSettings) -> ChoiceInputs:
    """Returns the configuration and the inputs of a unit that chooses as `settings` say."""
    config = settings.config
    sources = sorted([*settings.groups, *settings.pinned, *settings.left_out])
    unranked = {"pinned": settings.pinned, "left_out": settings.left_out}
    unlisted = {mask.reason: mask.unlisted or "refuse" for mask in settings.masks}
    return ChoiceInputs(
        config={**fingerprinted_arm(config, unlisted), "seed": settings.seed},
        upstream=(
            *(layout.tokens(source) for source in sources),
            *(layout.record_scores(config.score, source) for source in settings.groups),
            *(layout.keep(other) for other in config.without),
        ),
        # An input, not a setting: a source added to a finished run widens the selection.
        raw_inputs={
            **{f"group of {source}": group for source, group in settings.groups.items()},
            **{f"sources {how}": ", ".join(names) for how, names in unranked.items() if names},
        },
        raw_files=_mask_files(recipe, settings) if settings.masks else None,
    )


def _mask_files(recipe: Recipe, settings: SelectSettings) -> Callable[[], Mapping[str, str]]:
    def digests() -> Mapping[str, str]:
        prefix_names = {
            source: [
                prefix.name
                for prefix in read_token_dataset(recipe.run_folder / layout.tokens(source)).prefixes
            ]
            for source in sorted([*settings.groups, *settings.pinned])
        }
        return mask_digests(settings.masks, prefix_names)

    return digests


def candidates(workspace: Workspace, settings: SelectSettings) -> list[SourceDocuments]:
    """Returns the documents of every source, sorted by name, with what bars them."""
    return scored_documents(
        workspace,
        score=settings.config.score,
        scored=tuple(settings.groups),
        unscored=settings.pinned,
        left_out=settings.left_out,
        without=settings.config.without,
        masks=settings.masks,
        shared=settings.shared,
    )


def arm_choice(
    documents: Sequence[SourceDocuments],
    settings: SelectSettings,
    budget_tokens: int,
    earlier: EarlierChoice | None = None,
) -> Choice:
    """Returns what the arm keeps of these documents; `earlier` as `choose` takes it."""
    return choose(
        documents,
        settings.config,
        seed=settings.seed,
        groups=settings.groups,
        pinned=settings.pinned,
        budget_tokens=budget_tokens,
        where=settings.where,
        earlier=earlier,
    )
