"""Select under a token budget: record scores to keep masks, one arm at a time.

Reads   tokens/<source>/<source>.records.parquet, record_scores/<scoring>/<source>/part-*.parquet
Writes  keep/<arm>/<source>.keep.npy + .keep.json; selection.json, the certificate
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
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from mira_megatron import layout
from mira_megatron.atomic_files import write_json
from mira_megatron.config import Recipe, check_name, typed
from mira_megatron.grouping.source_groups import group_of_source
from mira_megatron.manifest import Counts
from mira_megatron.retention.budgets import Cut, keep_within_budget, proportional_budgets
from mira_megatron.retention.documents import read_documents, scope_name
from mira_megatron.retention.keep_masks import KeepMaskInfo, write_keep_mask
from mira_megatron.shards import json_digest, read_part
from mira_megatron.stage import Unit, WorkResult, Workspace

logger = logging.getLogger(__name__)

VERSION = 1
SCOPES = ("global", "group", "source")
TIE_RULE = "xxh3_64(seed:record_id), lowest first"


@dataclass(frozen=True, kw_only=True, slots=True)
class SelectConfig:
    """The budget of every arm that does not name its own: tokens, or a share of what there is."""

    budget_tokens: int | None = None
    budget_fraction: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ArmConfig:
    """One row of the comparison: a score, and the scope in which it is cut."""

    score: str  # a score table, record_scores/<score>
    scope: str  # one of SCOPES
    budget_tokens: int | None = None
    budget_fraction: float | None = None

    def __post_init__(self) -> None:
        check_name("score", self.score)
        if self.scope not in SCOPES:
            raise ValueError(f"scope={self.scope!r} must be one of {', '.join(SCOPES)}")


@dataclass(frozen=True, kw_only=True, slots=True)
class SelectSettings:
    """What one arm's unit needs."""

    arm: str
    config: ArmConfig
    seed: int
    groups: Mapping[str, str]  # source -> source group


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceDocuments:
    """The documents of one source with their scores; D documents in .idx order."""

    source: str
    record_ids: pa.Array
    tokens_D: npt.NDArray[np.int64]
    scores_D: npt.NDArray[np.float32]
    is_scored_D: npt.NDArray[np.bool_]
    is_trainable_D: npt.NDArray[np.bool_]  # neither held out nor a duplicate of what is
    num_held_out: int
    num_duplicates: int
    idx_fingerprint: str
    scores_fingerprint: str


def units(recipe: Recipe) -> list[Unit]:
    """Returns one unit per arm."""
    defaults = recipe.section("select", SelectConfig)
    groups = group_of_source(recipe)
    arms = recipe.mapping("arms")
    if not arms:
        raise ValueError(
            f"{recipe.path}: no arms. Name at least one, for example "
            "arms: {mira_group: {score: rule_judge, scope: group}}"
        )
    return [
        _unit(recipe, name, _arm_config(recipe, name, values, defaults), groups)
        for name, values in arms.items()
    ]


def _arm_config(
    recipe: Recipe, name: str, values: Mapping[str, Any], defaults: SelectConfig
) -> ArmConfig:
    if not isinstance(values, Mapping):
        raise ValueError(
            f"{recipe.path}: arms.{name} must be a mapping such as "
            f"{{score: rule_judge, scope: group}}, got {values!r}"
        )
    if not {"budget_tokens", "budget_fraction"} & values.keys():
        values = {
            **values,
            "budget_tokens": defaults.budget_tokens,
            "budget_fraction": defaults.budget_fraction,
        }
    arm = typed(ArmConfig, values, where=f"{recipe.path}: arms.{name}")
    if (arm.budget_tokens is None) == (arm.budget_fraction is None):
        raise ValueError(
            f"{recipe.path}: arms.{name} needs exactly one of budget_tokens and budget_fraction, "
            f"here or under select:, got {arm.budget_tokens} and {arm.budget_fraction}"
        )
    if arm.budget_tokens is not None and arm.budget_tokens < 1:
        raise ValueError(f"{recipe.path}: arms.{name}: budget_tokens={arm.budget_tokens} < 1")
    if arm.budget_fraction is not None and not 0 < arm.budget_fraction <= 1:
        raise ValueError(
            f"{recipe.path}: arms.{name}: budget_fraction={arm.budget_fraction} not in (0, 1]"
        )
    return arm


def _unit(recipe: Recipe, arm: str, config: ArmConfig, groups: Mapping[str, str]) -> Unit:
    upstream = [
        folder
        for source in groups
        for folder in (layout.tokens(source), layout.record_scores(config.score, source))
    ]
    return Unit(
        stage="select",
        name=arm,
        folder=layout.keep(arm),
        version=VERSION,
        config={**asdict(config), "seed": recipe.seed},
        upstream=tuple(upstream),
        # An input, not a setting: a source added to a finished run widens the selection.
        raw_inputs={f"group of {source}": group for source, group in groups.items()},
        work="mira_megatron.retention.selection:select",
        settings=SelectSettings(arm=arm, config=config, seed=recipe.seed, groups=groups),
    )


def select(workspace: Workspace, settings: SelectSettings) -> WorkResult:
    """Writes the keep masks of one arm and their certificate."""
    documents = scored_documents(workspace, settings)
    budget = _budget_tokens(settings.config, documents)
    masks, cuts = choose(documents, settings, budget)
    infos = {
        entry.source: write_keep_mask(
            workspace.folder / f"{entry.source}.keep.npy",
            masks[entry.source],
            entry.tokens_D,
            idx_fingerprint=entry.idx_fingerprint,
            scores_fingerprint=entry.scores_fingerprint,
        )
        for entry in documents
    }
    certificate = _certificate(settings, budget, documents, cuts, infos)
    write_json(workspace.folder / layout.CERTIFICATE, certificate)
    _warn_of_scopes(settings.arm, cuts)
    for source, decided in certificate["sources"].items():
        if decided["num_without_score"]:
            logger.warning(
                "select %s: %s records of %s have no score and cannot be kept; their tokens count "
                "in the share of the budget all the same",
                settings.arm,
                f"{decided['num_without_score']:,}",
                source,
            )
    num_documents = sum(info.num_documents for info in infos.values())
    num_kept = sum(info.num_kept for info in infos.values())
    held_out = sum(entry.num_held_out for entry in documents)
    duplicates = sum(entry.num_duplicates for entry in documents)
    dropped = {
        "held_out": held_out,
        "duplicate_of_held_out": duplicates,
        "not_selected": num_documents - num_kept - held_out - duplicates,
    }
    return WorkResult(
        counts=Counts(
            num_in=num_documents,
            num_out=num_kept,
            dropped={reason: num for reason, num in dropped.items() if num},
            totals={"budget_tokens": budget, "tokens_kept": certificate["tokens_kept"]},
        ),
        rows={f"{source}.keep.npy": info.num_documents for source, info in infos.items()},
    )


def choose(
    documents: Sequence[SourceDocuments], settings: SelectSettings, budget_tokens: int
) -> tuple[dict[str, npt.NDArray[np.bool_]], dict[str, tuple[Cut, str | None]]]:
    """Returns the keep mask per source, and per scope its cut and the first record left out."""
    members: dict[str, list[SourceDocuments]] = {}
    for entry in documents:
        group = settings.groups[entry.source]
        scope = scope_name(settings.config.scope, source=entry.source, source_group=group)
        members.setdefault(scope, []).append(entry)
    available = {
        scope: sum(int(entry.tokens_D[entry.is_trainable_D].sum()) for entry in entries)
        for scope, entries in members.items()
    }
    budgets = proportional_budgets(budget_tokens, available)
    masks: dict[str, npt.NDArray[np.bool_]] = {}
    cuts: dict[str, tuple[Cut, str | None]] = {}
    for scope, entries in members.items():
        trainable = np.concatenate([entry.is_trainable_D for entry in entries])
        ids = pa.concat_arrays([entry.record_ids for entry in entries]).filter(pa.array(trainable))
        is_kept, cut = keep_within_budget(
            np.concatenate([entry.scores_D for entry in entries])[trainable],
            np.concatenate([entry.is_scored_D for entry in entries])[trainable],
            np.concatenate([entry.tokens_D for entry in entries])[trainable],
            tie_values(ids, settings.seed),
            budgets[scope],
        )
        keep = np.zeros(len(trainable), dtype=bool)
        keep[trainable] = is_kept
        ends = np.cumsum([len(entry.tokens_D) for entry in entries])[:-1]
        pieces = np.split(keep, ends)
        masks |= {entry.source: piece for entry, piece in zip(entries, pieces, strict=True)}
        cuts[scope] = (cut, None if cut.first_out is None else ids[cut.first_out].as_py())
    return masks, cuts


def tie_values(record_ids: pa.Array, seed: int) -> npt.NDArray[np.uint64]:
    """Returns what orders equal scores: a hash of seed and id, the same in any source order."""
    return np.fromiter(
        (xxhash.xxh3_64_intdigest(f"{seed}:{name}".encode()) for name in record_ids.to_pylist()),
        dtype=np.uint64,
        count=len(record_ids),
    )


def scored_documents(workspace: Workspace, settings: SelectSettings) -> list[SourceDocuments]:
    """Returns the documents of every source; ValueError when scores and tokens do not align."""
    return [
        _source_documents(workspace, settings, source, table)
        for source, table in read_documents(workspace, settings.groups).items()
    ]


def _source_documents(
    workspace: Workspace,
    settings: SelectSettings,
    source: str,
    documents: pa.Table,
) -> SourceDocuments:
    scores_folder = layout.record_scores(settings.config.score, source)
    scores = pa.concat_tables(
        [
            read_part(path, part.digest, ["record_id", "score"])
            for path, part in workspace.upstream_parts(scores_folder, ".parquet")
        ]
    )
    _check_same_records(workspace, source, scores_folder, scores, documents)
    is_held_out = documents["is_validation"].to_numpy()
    repeats_held_out = documents["repeats_held_out"].to_numpy()
    dataset = orjson.loads(
        (workspace.run.folder / layout.tokens(source) / layout.DATASET).read_bytes()
    )
    return SourceDocuments(
        source=source,
        record_ids=documents["record_id"].combine_chunks(),
        tokens_D=documents["num_tokens"].to_numpy(),
        scores_D=pc.fill_null(scores["score"], 0.0).to_numpy(),
        is_scored_D=pc.is_valid(scores["score"]).to_numpy(),
        is_trainable_D=~repeats_held_out,
        num_held_out=int(is_held_out.sum()),
        num_duplicates=int((repeats_held_out & ~is_held_out).sum()),
        idx_fingerprint=dataset["idx_fingerprint"],
        scores_fingerprint=workspace.upstream_manifest(scores_folder).output_digest,
    )


def _check_same_records(
    workspace: Workspace, source: str, scores_folder: str, scores: pa.Table, documents: pa.Table
) -> None:
    if scores["record_id"].combine_chunks().equals(documents["record_id"].combine_chunks()):
        return
    raise ValueError(
        f"{workspace.run.folder / scores_folder}: its {scores.num_rows:,} records are not the "
        f"{documents.num_rows:,} documents of {layout.tokens(source)} in the same order. Score and "
        "tokenise the same records again."
    )


def _budget_tokens(config: ArmConfig, documents: Sequence[SourceDocuments]) -> int:
    if config.budget_tokens is not None:
        return config.budget_tokens
    assert config.budget_fraction is not None
    available = sum(int(entry.tokens_D[entry.is_trainable_D].sum()) for entry in documents)
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
        if cut.budget_tokens > cut.candidate_tokens:
            logger.warning(
                "select %s: %s has %s tokens, fewer than its %s of the budget: all are kept",
                arm,
                scope,
                f"{cut.candidate_tokens:,}",
                f"{cut.budget_tokens:,}",
            )


def _certificate(
    settings: SelectSettings,
    budget_tokens: int,
    documents: Sequence[SourceDocuments],
    cuts: Mapping[str, tuple[Cut, str | None]],
    infos: Mapping[str, KeepMaskInfo],
) -> dict[str, Any]:
    """Returns what was decided, under which rule, and up to where."""
    content = {
        "schema_version": 1,
        "arm": settings.arm,
        "score": settings.config.score,
        "scope": settings.config.scope,
        "seed": settings.seed,
        "tie_rule": TIE_RULE,
        "budget_tokens": budget_tokens,
        "tokens_kept": sum(info.tokens_kept for info in infos.values()),
        "scopes": {
            scope: {**asdict(cut), "first_out": first_out}
            for scope, (cut, first_out) in cuts.items()
        },
        "sources": {
            entry.source: {
                "source_group": settings.groups[entry.source],
                "num_held_out": entry.num_held_out,
                "num_duplicates_of_held_out": entry.num_duplicates,
                "num_without_score": int((entry.is_trainable_D & ~entry.is_scored_D).sum()),
                **asdict(infos[entry.source]),
            }
            for entry in documents
        },
    }
    return {**content, "digest": json_digest(content)}
