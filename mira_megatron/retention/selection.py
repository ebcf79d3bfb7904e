"""Select under a token budget: record scores to keep masks, one arm at a time.

Reads   tokens/<source>/*.records.parquet, record_scores/<scoring>/<source>/part-*.parquet,
        reliability_masks/<scoring>/<source>/cells.parquet of scores that it decided of,
        keep/<other arm>/ of the arms it goes without, masks made elsewhere
Writes  keep/<arm>/<prefix>.keep.npy + .keep.json (+ .repeats.npy), <prefix>.decisions.npy;
        selection.json, the certificate
Keeps   no held-out document, and no duplicate of one from any source
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from mira_megatron import layout
from mira_megatron.atomic_files import write_json
from mira_megatron.config import Recipe
from mira_megatron.manifest import Counts
from mira_megatron.retention.candidates import SourceDocuments
from mira_megatron.retention.certificate import certificate, decision_counts, warn_of
from mira_megatron.retention.choosing import Choice, budget_of
from mira_megatron.retention.decisions import Decision, decision_names
from mira_megatron.retention.keep_masks import KeepMaskInfo, write_decisions, write_keep_mask
from mira_megatron.retention.scopes import Chosen
from mira_megatron.retention.select_settings import (
    SelectSettings,
    arm_choice,
    candidates,
    choice_inputs,
    select_settings,
)
from mira_megatron.retention.unlike_masks import Unlike, unlike_masks
from mira_megatron.stage import Unit, WorkResult, Workspace

VERSION = 4


def units(recipe: Recipe) -> list[Unit]:
    """Returns one unit per arm, each after the arms it goes without."""
    return [_unit(recipe, settings) for settings in select_settings(recipe)]


def _unit(recipe: Recipe, settings: SelectSettings) -> Unit:
    inputs = choice_inputs(recipe, settings)
    return Unit(
        stage="select",
        name=settings.arm,
        folder=layout.keep(settings.arm),
        version=VERSION,
        config=inputs.config,
        upstream=inputs.upstream,
        raw_inputs=inputs.raw_inputs,
        raw_files=inputs.raw_files,
        work="mira_megatron.retention.selection:select",
        settings=settings,
    )


def select(workspace: Workspace, settings: SelectSettings) -> WorkResult:
    """Writes the keep masks of one arm and their certificate."""
    config = settings.config
    names = decision_names([mask.reason for mask in settings.masks])
    documents = candidates(workspace, settings)
    budget = budget_of(documents, config)
    choice = arm_choice(documents, settings, budget)
    infos = {
        entry.source: _write_masks(workspace, entry, choice.sources[entry.source])
        for entry in documents
    }
    unlike = unlike_masks(workspace, settings)
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
        unlike=unlike,
    )
    write_json(workspace.folder / layout.CERTIFICATE, content)
    warn_of(settings.arm, choice, content)
    return _work_result(choice, names, infos, budget, unlike)


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
    unlike: Unlike | None,
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
                **({} if unlike is None else {"groups with unlike masks": len(unlike)}),
            },
        ),
        rows={f"{name}.keep.npy": info.num_documents for name, info in masks.items()},
    )
