"""Select under a token budget: record scores to keep masks, one arm at a time.

Reads   tokens/<source>/*.records.parquet, record_scores/<scoring>/<source>/part-*.parquet,
        keep/<other arm>/ of the arms it goes without, masks made elsewhere
Writes  keep/<arm>/<prefix>.keep.npy + .keep.json (+ .repeats.npy), <prefix>.decisions.npy;
        selection.json, the certificate
Keeps   no held-out document, and no duplicate of one from any source
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from mira_megatron import layout
from mira_megatron.atomic_files import write_json
from mira_megatron.config import Recipe, nearest
from mira_megatron.grouping.source_groups import group_of_source
from mira_megatron.manifest import Counts
from mira_megatron.retention.arms import (
    ArmConfig,
    arm_configs,
    check_sources,
    fingerprinted_arm,
)
from mira_megatron.retention.candidates import SourceDocuments, scored_documents
from mira_megatron.retention.certificate import certificate, decision_counts, warn_of
from mira_megatron.retention.choosing import Choice, budget_of, choose
from mira_megatron.retention.decisions import Decision, decision_names
from mira_megatron.retention.documents import SharedTables
from mira_megatron.retention.keep_masks import KeepMaskInfo, write_decisions, write_keep_mask
from mira_megatron.retention.outside_masks import OutsideMask, mask_digests, outside_masks
from mira_megatron.retention.scopes import Chosen
from mira_megatron.stage import Unit, WorkResult, Workspace
from mira_megatron.tokenization.adopted import UNSCORED_PIN, adopted_sources
from mira_megatron.tokenization.token_dataset import read_token_dataset

VERSION = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class SelectSettings:
    """What one arm's unit needs."""

    arm: str
    config: ArmConfig
    seed: int
    groups: Mapping[str, str]  # source -> source group, of the sources that are ranked
    where: str  # in which recipe the arm stands, for messages
    pinned: tuple[str, ...] = ()  # sources that are kept whole
    left_out: tuple[str, ...] = ()  # sources that are not trained on
    masks: tuple[OutsideMask, ...] = ()
    shared: SharedTables = field(default_factory=SharedTables, repr=False, compare=False)


def units(recipe: Recipe) -> list[Unit]:
    """Returns one unit per arm, each after the arms it goes without."""
    arms = arm_configs(recipe)
    groups = group_of_source(recipe)
    shared = SharedTables()
    return [_unit(recipe, _settings(recipe, name, arms[name], groups, shared)) for name in arms]


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
    return SelectSettings(
        arm=arm,
        config=config,
        seed=recipe.seed,
        groups={name: ranked[name] for name in sorted(ranked) if name not in not_ranked},
        where=where,
        pinned=tuple(sorted(pinned)),
        left_out=tuple(sorted((set(unscored) | set(config.excluded)) - pinned)),
        masks=outside_masks(recipe, where, config.with_masks),
        shared=shared,
    )


def _unit(recipe: Recipe, settings: SelectSettings) -> Unit:
    config = settings.config
    sources = sorted([*settings.groups, *settings.pinned, *settings.left_out])
    unranked = {"pinned": settings.pinned, "left_out": settings.left_out}
    unlisted = {mask.reason: mask.unlisted or "refuse" for mask in settings.masks}
    return Unit(
        stage="select",
        name=settings.arm,
        folder=layout.keep(settings.arm),
        version=VERSION,
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
        work="mira_megatron.retention.selection:select",
        settings=settings,
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


def select(workspace: Workspace, settings: SelectSettings) -> WorkResult:
    """Writes the keep masks of one arm and their certificate."""
    config = settings.config
    names = decision_names([mask.reason for mask in settings.masks])
    documents = scored_documents(
        workspace,
        score=config.score,
        scored=tuple(settings.groups),
        unscored=settings.pinned,
        left_out=settings.left_out,
        without=config.without,
        masks=settings.masks,
        shared=settings.shared,
    )
    budget = budget_of(documents, config)
    choice = choose(
        documents,
        config,
        seed=settings.seed,
        groups=settings.groups,
        pinned=settings.pinned,
        budget_tokens=budget,
        where=settings.where,
    )
    infos = {
        entry.source: _write_masks(workspace, entry, choice.sources[entry.source])
        for entry in documents
    }
    content = certificate(
        settings.arm,
        config,
        seed=settings.seed,
        budget_tokens=budget,
        names=names,
        groups=settings.groups,
        pinned=settings.pinned,
        documents=documents,
        choice=choice,
        infos=infos,
    )
    write_json(workspace.folder / layout.CERTIFICATE, content)
    warn_of(settings.arm, choice, content)
    return _work_result(choice, names, infos, budget)


def _write_masks(
    workspace: Workspace, entry: SourceDocuments, chosen: Chosen
) -> dict[str, KeepMaskInfo]:
    """Returns what was written for each prefix of a source, by the prefix's name."""
    infos, start = {}, 0
    for prefix in entry.prefixes:
        own = slice(start, start + prefix.num_documents)
        times_D = chosen.times_D[own]
        infos[prefix.name] = write_keep_mask(
            workspace.folder / f"{prefix.name}.keep.npy",
            times_D > 0,
            entry.tokens_D[own],
            idx_fingerprint=prefix.idx_fingerprint,
            scores_fingerprint=entry.scores_fingerprint,
            repeats_D=times_D if (times_D > 1).any() else None,
        )
        write_decisions(workspace.folder / layout.decisions(prefix.name), chosen.decisions_D[own])
        start += prefix.num_documents
    assert start == len(chosen.times_D), entry.source
    return infos


def _work_result(
    choice: Choice,
    names: Sequence[str],
    infos: Mapping[str, Mapping[str, KeepMaskInfo]],
    budget_tokens: int,
) -> WorkResult:
    nums: Counter[str] = Counter()
    for chosen in choice.sources.values():
        nums.update(decision_counts(chosen, names))
    masks = {name: info for of_source in infos.values() for name, info in of_source.items()}
    num_kept = nums.pop(names[Decision.KEPT])
    return WorkResult(
        counts=Counts(
            num_in=sum(info.num_documents for info in masks.values()),
            num_out=num_kept,
            dropped={reason: num for reason, num in nums.items() if num},
            totals={
                "budget_tokens": budget_tokens,
                "tokens_kept": sum(info.tokens_kept for info in masks.values()),
            },
        ),
        rows={f"{name}.keep.npy": info.num_documents for name, info in masks.items()},
    )
