"""Select under a token budget: record scores to keep masks, one arm at a time.

Reads   tokens/<source>/*.records.parquet, record_scores/<scoring>/<source>/part-*.parquet,
        keep/<other arm>/ of the arms it goes without
Writes  keep/<arm>/<prefix>.keep.npy + .keep.json (+ .repeats.npy); selection.json, the certificate
Keeps   no held-out document, and no duplicate of one from any source
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from mira_megatron import layout
from mira_megatron.atomic_files import write_json
from mira_megatron.config import Recipe, nearest
from mira_megatron.grouping.source_groups import group_of_source
from mira_megatron.manifest import Counts
from mira_megatron.retention.arms import ArmConfig, arm_configs
from mira_megatron.retention.budgets import (
    Cut,
    Repeats,
    proportional_budgets,
    times_within_budget,
)
from mira_megatron.retention.candidates import SourceDocuments, scored_documents
from mira_megatron.retention.documents import scope_name
from mira_megatron.retention.keep_masks import KeepMaskInfo, write_keep_mask
from mira_megatron.shards import json_digest
from mira_megatron.stage import Unit, WorkResult, Workspace
from mira_megatron.tokenization.adopted import UNSCORED_PIN, adopted_sources

logger = logging.getLogger(__name__)

VERSION = 2
_IDS_AT_ONCE = 100_000
TIE_RULE = "xxh3_64(seed:record_id), lowest first"


@dataclass(frozen=True, kw_only=True, slots=True)
class SelectSettings:
    """What one arm's unit needs."""

    arm: str
    config: ArmConfig
    seed: int
    groups: Mapping[str, str]  # source -> source group, of the sources that are ranked
    pinned: tuple[str, ...] = ()  # sources without scores that are kept whole
    left_out: tuple[str, ...] = ()  # sources without scores that are not trained on


def units(recipe: Recipe) -> list[Unit]:
    """Returns one unit per arm, each after the arms it goes without."""
    arms = arm_configs(recipe)
    groups = group_of_source(recipe)
    return [_unit(recipe, _settings(recipe, name, arm, groups)) for name, arm in arms.items()]


def _check_score(recipe: Recipe, arm: str, config: ArmConfig, groups: Mapping[str, str]) -> None:
    """Raises ValueError for a score that no source has: all would be pinned, or left out."""
    known = {name for source in adopted_sources(recipe).values() for name in source.scores}
    if not groups and config.score not in known:
        tail = nearest(config.score, known) if known else " None of its sources has scores."
        raise ValueError(f"{recipe.path}: arms.{arm}.score: no score {config.score!r}.{tail}")


def _settings(
    recipe: Recipe, arm: str, config: ArmConfig, groups: Mapping[str, str]
) -> SelectSettings:
    _check_score(recipe, arm, config, groups)
    adopted = adopted_sources(recipe)
    unscored = {name: entry for name, entry in adopted.items() if config.score not in entry.scores}
    scored = {name: entry.group or name for name, entry in adopted.items() if name not in unscored}
    pinned = [name for name, entry in unscored.items() if entry.unscored == UNSCORED_PIN]
    return SelectSettings(
        arm=arm,
        config=config,
        seed=recipe.seed,
        groups=dict(sorted({**groups, **scored}.items())),
        pinned=tuple(pinned),
        left_out=tuple(name for name in unscored if name not in pinned),
    )


def _unit(recipe: Recipe, settings: SelectSettings) -> Unit:
    config = settings.config
    sources = sorted([*settings.groups, *settings.pinned, *settings.left_out])
    unranked = {"pinned": settings.pinned, "left_out": settings.left_out}
    return Unit(
        stage="select",
        name=settings.arm,
        folder=layout.keep(settings.arm),
        version=VERSION,
        config={**asdict(config), "seed": settings.seed},
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
        work="mira_megatron.retention.selection:select",
        settings=settings,
    )


def select(workspace: Workspace, settings: SelectSettings) -> WorkResult:
    """Writes the keep masks of one arm and their certificate."""
    documents = scored_documents(
        workspace,
        score=settings.config.score,
        scored=tuple(settings.groups),
        unscored=(*settings.pinned, *settings.left_out),
        without=settings.config.without,
    )
    budget = _budget_tokens(settings, documents)
    times, cuts = choose(documents, settings, budget)
    infos = {
        entry.source: _write_masks(workspace, entry, times[entry.source]) for entry in documents
    }
    distinct = {
        entry.source: int(entry.tokens_D[times[entry.source] > 0].sum()) for entry in documents
    }
    certificate = _certificate(settings, budget, documents, cuts, infos, distinct)
    write_json(workspace.folder / layout.CERTIFICATE, certificate)
    _warn_of_scopes(settings.arm, cuts)
    _warn_of_unscored(settings.arm, certificate)
    return _work_result(documents, infos, certificate)


def _write_masks(
    workspace: Workspace, entry: SourceDocuments, times_D: npt.NDArray[np.uint8]
) -> dict[str, KeepMaskInfo]:
    """Returns what was written for each prefix of a source, by the prefix's name."""
    infos, start = {}, 0
    for prefix in entry.prefixes:
        own = slice(start, start + prefix.num_documents)
        infos[prefix.name] = write_keep_mask(
            workspace.folder / f"{prefix.name}.keep.npy",
            times_D[own] > 0,
            entry.tokens_D[own],
            idx_fingerprint=prefix.idx_fingerprint,
            scores_fingerprint=entry.scores_fingerprint,
            repeats_D=times_D[own] if (times_D[own] > 1).any() else None,
        )
        start += prefix.num_documents
    assert start == len(times_D), entry.source
    return infos


def _work_result(
    documents: Sequence[SourceDocuments],
    infos: Mapping[str, Mapping[str, KeepMaskInfo]],
    certificate: Mapping[str, Any],
) -> WorkResult:
    masks = {name: info for of_source in infos.values() for name, info in of_source.items()}
    num_documents = sum(info.num_documents for info in masks.values())
    num_kept = sum(info.num_kept for info in masks.values())
    dropped = {
        "held_out": sum(entry.num_held_out for entry in documents),
        "duplicate_of_held_out": sum(entry.num_duplicates for entry in documents),
        "in_another_arm": sum(entry.num_in_other_arms for entry in documents),
    }
    dropped["not_selected"] = num_documents - num_kept - sum(dropped.values())
    return WorkResult(
        counts=Counts(
            num_in=num_documents,
            num_out=num_kept,
            dropped={reason: num for reason, num in dropped.items() if num},
            totals={name: certificate[name] for name in ("budget_tokens", "tokens_kept")},
        ),
        rows={f"{name}.keep.npy": info.num_documents for name, info in masks.items()},
    )


def choose(
    documents: Sequence[SourceDocuments], settings: SelectSettings, budget_tokens: int
) -> tuple[dict[str, npt.NDArray[np.uint8]], dict[str, tuple[Cut, str | None]]]:
    """Returns how often each document of a source is seen, 0 = dropped, by source; and per scope
    its cut and the first record left out.

    Pinned sources are kept first; what they leave of the budget is shared by the scopes.
    """
    times, pinned_tokens = _unranked_times(documents, settings)
    if pinned_tokens > budget_tokens:
        raise ValueError(
            f"arm {settings.arm}: the pinned sources {', '.join(settings.pinned)} hold "
            f"{pinned_tokens:,} tokens, more than the whole budget of {budget_tokens:,}. Raise the "
            "budget, or leave some out (adopt.<source>.unscored: leave_out)."
        )
    members: dict[str, list[SourceDocuments]] = {}
    for entry in documents:
        if entry.source in settings.groups:
            group = settings.groups[entry.source]
            scope = scope_name(settings.config.scope, source=entry.source, source_group=group)
            members.setdefault(scope, []).append(entry)
    available = {
        scope: sum(entry.trainable_tokens for entry in entries)
        for scope, entries in members.items()
    }
    budgets = proportional_budgets(budget_tokens - pinned_tokens, available)
    cuts = {}
    for scope, entries in members.items():
        chosen, cut = _choose_in_scope(entries, settings, budgets[scope])
        times |= chosen
        cuts[scope] = cut
    return times, cuts


def _unranked_times(
    documents: Sequence[SourceDocuments], settings: SelectSettings
) -> tuple[dict[str, npt.NDArray[np.uint8]], int]:
    """Returns the times of sources that are pinned or left out, and the tokens pinned."""
    times, pinned_tokens = {}, 0
    for entry in documents:
        if entry.source in settings.pinned:
            times[entry.source] = entry.is_trainable_D.astype(np.uint8)
            pinned_tokens += entry.trainable_tokens
        elif entry.source in settings.left_out:
            times[entry.source] = np.zeros(len(entry.tokens_D), dtype=np.uint8)
    return times, pinned_tokens


def _choose_in_scope(
    entries: Sequence[SourceDocuments], settings: SelectSettings, budget_tokens: int
) -> tuple[dict[str, npt.NDArray[np.uint8]], tuple[Cut, str | None]]:
    trainable = np.concatenate([entry.is_trainable_D for entry in entries])
    ids = pa.chunked_array(
        [chunk for entry in entries for chunk in entry.record_ids.chunks], pa.string()
    ).filter(pa.array(trainable))
    chosen, cut = times_within_budget(
        np.concatenate([entry.scores_D for entry in entries])[trainable],
        np.concatenate([entry.is_scored_D for entry in entries])[trainable],
        np.concatenate([entry.tokens_D for entry in entries])[trainable],
        tie_values(ids, settings.seed),
        budget_tokens,
        _repeats(settings.config),
    )
    times = np.zeros(len(trainable), dtype=np.uint8)
    times[trainable] = chosen
    pieces = np.split(times, np.cumsum([len(entry.tokens_D) for entry in entries])[:-1])
    first_out = None if cut.first_out is None else ids[cut.first_out].as_py()
    by_source = {entry.source: piece for entry, piece in zip(entries, pieces, strict=True)}
    return by_source, (cut, first_out)


def _repeats(config: ArmConfig) -> Repeats | None:
    if config.repeat_fraction is None or config.repeat_times is None:
        return None
    return Repeats(fraction=config.repeat_fraction, times=config.repeat_times)


def tie_values(record_ids: pa.ChunkedArray, seed: int) -> npt.NDArray[np.uint64]:
    """Returns what orders equal scores: a hash of seed and id, the same in any source order."""
    values = np.empty(len(record_ids), dtype=np.uint64)
    # In slices: as Python strings all ids of a large corpus would fill the memory.
    for start in range(0, len(record_ids), _IDS_AT_ONCE):
        names = record_ids.slice(start, _IDS_AT_ONCE).to_pylist()
        values[start : start + len(names)] = [
            xxhash.xxh3_64_intdigest(f"{seed}:{name}".encode()) for name in names
        ]
    return values


def _budget_tokens(settings: SelectSettings, documents: Sequence[SourceDocuments]) -> int:
    """Returns the budget; a fraction is one of all trainable tokens, in whatever arm they are."""
    config = settings.config
    if config.budget_tokens is not None:
        return config.budget_tokens
    assert config.budget_fraction is not None
    offered = [entry for entry in documents if entry.source not in settings.left_out]
    available = sum(entry.trainable_tokens + entry.tokens_in_other_arms for entry in offered)
    return math.floor(Fraction(str(config.budget_fraction)) * available)


def _warn_of_scopes(arm: str, cuts: Mapping[str, tuple[Cut, str | None]]) -> None:
    """Says what a certificate holds but nobody may look for."""
    for scope, (cut, first_out) in cuts.items():
        if first_out is not None and not cut.num_kept:
            logger.warning(
                "select %s: %s keeps nothing: its first record alone exceeds its %s tokens of the "
                "budget. Raise the budget, or drop such records at ingest (max_chars)",
                arm,
                scope,
                f"{cut.budget_tokens:,}",
            )
        if cut.budget_tokens > cut.candidate_tokens and first_out is None:
            logger.warning(
                "select %s: %s has %s tokens, fewer than its %s of the budget: all are kept",
                arm,
                scope,
                f"{cut.candidate_tokens:,}",
                f"{cut.budget_tokens:,}",
            )


def _warn_of_unscored(arm: str, certificate: Mapping[str, Any]) -> None:
    for source, decided in certificate["sources"].items():
        if decided["how"] == "ranked" and decided["num_without_score"]:
            logger.warning(
                "select %s: %s records of %s have no score and cannot be kept; their tokens count "
                "in the share of the budget all the same",
                arm,
                f"{decided['num_without_score']:,}",
                source,
            )
        if decided["how"] == "left_out":
            logger.warning("select %s: %s has no scores and is left out", arm, source)


def _certificate(
    settings: SelectSettings,
    budget_tokens: int,
    documents: Sequence[SourceDocuments],
    cuts: Mapping[str, tuple[Cut, str | None]],
    infos: Mapping[str, Mapping[str, KeepMaskInfo]],
    tokens_distinct: Mapping[str, int],
) -> dict[str, Any]:
    """Returns what was decided, under which rule, and up to where."""
    config = settings.config
    sources = {
        entry.source: {
            **_decided(settings, entry, infos[entry.source]),
            "tokens_distinct": tokens_distinct[entry.source],  # a repeated document's count once
        }
        for entry in documents
    }
    content = {
        "schema_version": 2,
        "arm": settings.arm,
        "score": config.score,
        "scope": config.scope,
        "repeat_fraction": config.repeat_fraction,
        "repeat_times": config.repeat_times,
        "without": config.without,
        "seed": settings.seed,
        "tie_rule": TIE_RULE,
        "budget_tokens": budget_tokens,
        "tokens_kept": sum(decided["tokens_kept"] for decided in sources.values()),
        "scopes": {
            scope: {**asdict(cut), "first_out": first_out}
            for scope, (cut, first_out) in cuts.items()
        },
        "sources": sources,
    }
    return {**content, "digest": json_digest(content)}


def _decided(
    settings: SelectSettings, entry: SourceDocuments, infos: Mapping[str, KeepMaskInfo]
) -> dict[str, Any]:
    how = "pinned" if entry.source in settings.pinned else "left_out"
    sums = ("num_documents", "num_kept", "tokens_total", "tokens_kept")
    return {
        "how": "ranked" if entry.source in settings.groups else how,
        "source_group": settings.groups.get(entry.source),
        "num_held_out": entry.num_held_out,
        "num_duplicates_of_held_out": entry.num_duplicates,
        "num_in_other_arms": entry.num_in_other_arms,
        "num_without_score": int((entry.is_trainable_D & ~entry.is_scored_D).sum()),
        "scores_fingerprint": entry.scores_fingerprint,
        **{name: sum(getattr(info, name) for info in infos.values()) for name in sums},
        "prefixes": {name: asdict(info) for name, info in infos.items()},
    }
