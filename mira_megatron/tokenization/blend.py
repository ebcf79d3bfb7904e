"""Hand a selection to Megatron, one arm at a time.

Reads   keep/<arm>/<prefix>.keep.npy, tokens/<source>/
Writes  blends/<arm>/blend.json: Megatron's per-split prefixes (train, valid, test), relative to it
        blends/<arm>/<prefix>-<digest8>.{idx,bin}: what the kept documents look like to Megatron
        blends/<arm>/<prefix>-valid-<digest8>.{idx,bin}: the held-out documents, the same for all

Without weights, the default, Megatron reads one pass: every kept token at most as often as it was
to be seen. Names carry the selection's digest, because Megatron's index cache knows neither mask
nor contents.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mira_megatron import layout
from mira_megatron.atomic_files import write_json
from mira_megatron.config import Recipe, nearest
from mira_megatron.corpus.recipe_sources import recipe_sources
from mira_megatron.manifest import Counts, verify_digests
from mira_megatron.retention.documents import documents_table, token_dataset
from mira_megatron.retention.keep_masks import (
    KeepMask,
    KeepMaskInfo,
    read_keep_mask,
    selection_digest,
)
from mira_megatron.stage import Unit, WorkResult, Workspace
from mira_megatron.tokenization.adopted import adopted_sources
from mira_megatron.tokenization.blend_weights import (
    WEIGHTS,
    WeightedPrefix,
    source_weights,
    token_weights,
    weight_consequences,
)
from mira_megatron.tokenization.handovers import (
    selected_index,
    write_index_view,
    write_physical_copy,
)
from mira_megatron.tokenization.index_file import SequenceIndex
from mira_megatron.tokenization.token_dataset import (
    TokenPrefix,
    check_no_pair_twice,
    check_one_vocabulary,
    check_unchanged,
)

logger = logging.getLogger(__name__)

VERSION = 2
HANDOVERS = ("index_view", "keep_mask_dataset", "physical_copy")


@dataclass(frozen=True, kw_only=True, slots=True)
class BlendConfig:
    """How kept documents reach Megatron, and the length of its samples."""

    handover: str  # one of HANDOVERS
    sequence_length: int  # tokens
    weights: str | None = None  # one of WEIGHTS; None reads every prefix exactly once
    source_weights: dict[str, float] | None = None  # by source, of any scale; instead of `weights`

    def __post_init__(self) -> None:
        if self.handover not in HANDOVERS:
            raise ValueError(f"handover={self.handover!r} must be one of {', '.join(HANDOVERS)}")
        if self.sequence_length < 1:
            raise ValueError(f"sequence_length={self.sequence_length} must be positive")
        if self.weights is not None and self.weights not in WEIGHTS:
            raise ValueError(f"weights={self.weights!r} must be null or {', '.join(WEIGHTS)}")
        if self.weights is not None and self.source_weights is not None:
            raise ValueError("weights and source_weights: give one of them, or neither")
        for source, weight in (self.source_weights or {}).items():
            if not 0 < weight < float("inf"):
                raise ValueError(f"source_weights.{source}={weight} must be a positive number")


@dataclass(frozen=True, kw_only=True, slots=True)
class BlendSettings:
    """What one arm's unit needs."""

    arm: str
    config: BlendConfig
    sources: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class BlendEntry:
    """One prefix of one split."""

    source: str
    name: str  # the source's, or <source>.<i> where it has several prefixes
    split: str  # train | valid
    prefix: str  # relative to blend.json
    keep_mask: str | None  # relative to blend.json; only for KeepMaskGPTDataset
    num_documents: int
    num_tokens: int
    num_samples: int  # of sequence_length, in one pass
    tail_tokens: int  # in no sample: fewer than sequence_length, or all where there is no sample

    @property
    def is_readable(self) -> bool:
        """Returns whether Megatron can draw a sample; it refuses a prefix that holds none."""
        return self.num_samples > 0


def units(recipe: Recipe) -> list[Unit]:
    """Returns one unit per arm."""
    config = recipe.section("blend", BlendConfig)
    sources = tuple(sorted([*recipe_sources(recipe), *adopted_sources(recipe)]))
    for name in config.source_weights or ():
        if name not in sources:
            tail = nearest(name, sources)
            raise ValueError(f"{recipe.path}: blend.source_weights: no source {name!r}.{tail}")
    return [
        Unit(
            stage="blend",
            name=arm,
            folder=layout.blend(arm),
            version=VERSION,
            config=asdict(config),
            upstream=(
                layout.keep(arm),
                layout.TOKENIZER,
                *(layout.tokens(source) for source in sources),
            ),
            work="mira_megatron.tokenization.blend:blend",
            settings=BlendSettings(arm=arm, config=config, sources=sources),
        )
        for arm in recipe.mapping("arms")
    ]


def blend(workspace: Workspace, settings: BlendSettings) -> WorkResult:
    """Writes what Megatron reads for one arm."""
    if settings.config.handover == "physical_copy":
        # A copy leaves this run, and nobody could tell later that its tokens were damaged.
        for source in settings.sources:
            folder = layout.tokens(source)
            verify_digests(workspace.run.folder / folder, workspace.upstream_manifest(folder))
    datasets = [token_dataset(workspace, source) for source in settings.sources]
    check_one_vocabulary(datasets)
    check_no_pair_twice(datasets)
    for dataset in datasets:
        for prefix in dataset.prefixes:
            check_unchanged(prefix)
    entries = [
        entry
        for dataset in datasets
        for entry in (
            *(_train_entry(workspace, settings, prefix) for prefix in dataset.prefixes),
            *_valid_entries(workspace, settings, dataset.prefixes),
        )
    ]
    content = blend_content(workspace, settings, entries)
    if not content["train"] or not content["valid"]:
        split = "valid" if content["train"] else "train"
        raise ValueError(
            f"arm {settings.arm}: no source has a whole sequence of "
            f"{settings.config.sequence_length} tokens for {split}. Lower blend.sequence_length, "
            "or raise the budget (train) or tokenize.validation_max_tokens (valid)."
        )
    write_json(workspace.folder / layout.BLEND, content)
    _log_left_out(settings, entries)
    train = [entry for entry in entries if entry.split == "train"]
    readable = [entry for entry in train if entry.is_readable]
    num_left_out = sum(entry.num_documents for entry in train if not entry.is_readable)
    return WorkResult(
        counts=Counts(
            num_in=sum(entry.num_documents for entry in train),
            num_out=sum(entry.num_documents for entry in readable),
            dropped={"fills_no_sequence": num_left_out} if num_left_out else {},
            totals={
                "tokens": sum(entry.num_tokens for entry in train),
                "samples": sum(entry.num_samples for entry in readable),
                "tail_tokens": sum(entry.tail_tokens for entry in train),
            },
        )
    )


def blend_content(
    workspace: Workspace, settings: BlendSettings, entries: Sequence[BlendEntry]
) -> dict[str, Any]:
    """Returns blend.json: Megatron's three lists of prefixes, and what stands behind them."""
    dataset = token_dataset(workspace, settings.sources[0])
    readable = [entry for entry in entries if entry.is_readable]
    train = [entry for entry in readable if entry.split == "train"]
    valid = [entry.prefix for entry in readable if entry.split == "valid"]
    tokenizer = workspace.run.folder / layout.TOKENIZER / layout.TOKENIZER_FILE
    return {
        "schema_version": 2,
        "arm": settings.arm,
        **asdict(settings.config),
        "train": [entry.prefix for entry in train],
        "train_weights": _train_weights(settings, train),
        "valid": valid,
        "test": valid,
        # One pass. With a single prefix Megatron repeats documents for whoever asks for more.
        "num_train_samples": sum(entry.num_samples for entry in train),
        "keep_masks": {entry.prefix: entry.keep_mask for entry in readable if entry.keep_mask},
        "entries": [asdict(entry) for entry in readable],
        "left_out": [asdict(entry) for entry in entries if not entry.is_readable],
        "tokenizer": _relative(workspace, tokenizer),
        "eod_id": dataset.eod_id,
        "vocab_size": dataset.vocab_size,
    }


def _train_weights(settings: BlendSettings, train: Sequence[BlendEntry]) -> list[float] | None:
    """Returns a weight per training prefix, or None; warns of what they repeat or leave out."""
    config = settings.config
    prefixes = [
        WeightedPrefix(
            source=entry.source,
            name=entry.name,
            num_tokens=entry.num_tokens,
            num_samples=entry.num_samples,
        )
        for entry in train
    ]
    if not prefixes or (config.weights is None and config.source_weights is None):
        return None
    weights = (
        token_weights(prefixes)
        if config.source_weights is None
        else source_weights(prefixes, config.source_weights)
    )
    for name in sorted(set(config.source_weights or ()) - {prefix.source for prefix in prefixes}):
        logger.warning("blend %s: trains on nothing of %s; its weight is idle", settings.arm, name)
    one_pass = sum(prefix.num_samples for prefix in prefixes)
    for consequence in weight_consequences(prefixes, weights, one_pass):
        logger.warning("blend %s: %s", settings.arm, consequence)
    return weights


def _train_entry(workspace: Workspace, settings: BlendSettings, source: TokenPrefix) -> BlendEntry:
    folder = workspace.run.folder / layout.keep(settings.arm)
    mask = read_keep_mask(folder / f"{source.name}.keep.npy")
    prefix = workspace.folder / f"{source.name}-{mask.info.selection_digest[:8]}"
    match settings.config.handover:
        case "index_view":
            index = write_index_view(source.path_prefix, mask, prefix, within=workspace.run.folder)
        case "physical_copy":
            index = write_physical_copy(source.path_prefix, mask, prefix)
        case _:
            index = selected_index(source.path_prefix, mask)
            original = _relative(workspace, source.path_prefix)
            return _entry(
                settings, source, "train", original, index, _relative(workspace, mask.path)
            )
    return _entry(settings, source, "train", prefix.name, index)


def _valid_entries(
    workspace: Workspace, settings: BlendSettings, prefixes: Sequence[TokenPrefix]
) -> list[BlendEntry]:
    """Returns the held-out documents of a source, of the prefixes that have some."""
    table = documents_table(workspace, prefixes[0].source, ["is_validation", "num_tokens"])
    starts = np.cumsum([0, *(prefix.num_documents for prefix in prefixes)]).tolist()
    masks = [
        (prefix, _held_out_mask(prefix, table.slice(start, prefix.num_documents)))
        for prefix, start in zip(prefixes, starts, strict=False)
    ]
    return [
        _valid_entry(workspace, settings, prefix, mask)
        for prefix, mask in masks
        if mask.info.num_kept
    ]


def _valid_entry(
    workspace: Workspace,
    settings: BlendSettings,
    source: TokenPrefix,
    mask: KeepMask,
) -> BlendEntry:
    prefix = workspace.folder / f"{source.name}-valid-{mask.info.selection_digest[:8]}"
    if settings.config.handover == "physical_copy":
        index = write_physical_copy(source.path_prefix, mask, prefix)
    else:
        index = write_index_view(source.path_prefix, mask, prefix, within=workspace.run.folder)
    return _entry(settings, source, "valid", prefix.name, index)


def _held_out_mask(source: TokenPrefix, documents: pa.Table) -> KeepMask:
    """Returns the held-out documents of a prefix as a mask, so that they take the same way."""
    is_held_out = documents["is_validation"].to_numpy()
    tokens = documents["num_tokens"].to_numpy()
    info = KeepMaskInfo(
        num_documents=len(is_held_out),
        num_kept=int(is_held_out.sum()),
        tokens_total=int(tokens.sum()),
        tokens_kept=int(tokens[is_held_out].sum()),
        idx_fingerprint=source.idx_fingerprint,
        scores_fingerprint="",
        selection_digest=selection_digest(source.idx_fingerprint, is_held_out),
    )
    return KeepMask(path=source.documents, is_kept=is_held_out, info=info)


def _entry(
    settings: BlendSettings,
    source: TokenPrefix,
    split: str,
    prefix: str,
    index: SequenceIndex,
    keep_mask: str | None = None,
) -> BlendEntry:
    # Megatron tiles the documents with samples that share one token: the last label of one is the
    # first input of the next, so n samples need n * sequence_length + 1 tokens.
    num_tokens = index.num_tokens
    num_samples = max(num_tokens - 1, 0) // settings.config.sequence_length
    used = num_samples * settings.config.sequence_length + 1 if num_samples else 0
    return BlendEntry(
        source=source.source,
        name=source.name,
        split=split,
        prefix=prefix,
        keep_mask=keep_mask,
        num_documents=index.num_documents,
        num_tokens=num_tokens,
        num_samples=num_samples,
        tail_tokens=num_tokens - used,
    )


def _relative(workspace: Workspace, path: Path) -> str:
    """Returns a path relative to blend.json; one outside the run stays absolute."""
    if not path.is_relative_to(workspace.run.folder):
        return path.as_posix()
    up = "/".join([".."] * len(Path(workspace.unit.folder).parts))
    return f"{up}/{path.relative_to(workspace.run.folder).as_posix()}"


def _log_left_out(settings: BlendSettings, entries: Sequence[BlendEntry]) -> None:
    for entry in entries:
        if entry.num_documents and not entry.is_readable:
            logger.warning(
                "blend %s: %s of %s is left out: its %d tokens fill no sequence of %d",
                settings.arm,
                entry.split,
                entry.name,
                entry.num_tokens,
                settings.config.sequence_length,
            )
