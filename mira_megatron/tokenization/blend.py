"""Hand a selection to Megatron, one arm at a time.

Reads   keep/<arm>/<source>.keep.npy, tokens/<source>/
Writes  blends/<arm>/blend.json: Megatron's per-split prefixes (train, valid, test), relative to it
        blends/<arm>/<source>-<digest8>.{idx,bin}: what the kept documents look like to Megatron
        blends/<arm>/<source>-valid-<digest8>.{idx,bin}: the held-out documents, the same for all

Prefixes carry no weights: Megatron then reads one pass over them, every kept token at most once.
Names carry the selection's digest, because Megatron's index cache knows neither mask nor contents.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from mira_megatron import layout
from mira_megatron.atomic_files import write_json
from mira_megatron.config import Recipe
from mira_megatron.corpus.recipe_sources import recipe_sources
from mira_megatron.manifest import Counts, verify_digests
from mira_megatron.retention.keep_masks import (
    KeepMask,
    KeepMaskInfo,
    read_keep_mask,
    selection_digest,
)
from mira_megatron.shards import read_part
from mira_megatron.stage import Unit, WorkResult, Workspace
from mira_megatron.tokenization.handovers import (
    checked_index,
    kept_index,
    write_index_view,
    write_physical_copy,
)
from mira_megatron.tokenization.index_file import SequenceIndex, index_fingerprint, read_index

logger = logging.getLogger(__name__)

VERSION = 1
HANDOVERS = ("index_view", "keep_mask_dataset", "physical_copy")


@dataclass(frozen=True, kw_only=True, slots=True)
class BlendConfig:
    """How kept documents reach Megatron, and the length of its samples."""

    handover: str  # one of HANDOVERS
    sequence_length: int  # tokens

    def __post_init__(self) -> None:
        if self.handover not in HANDOVERS:
            raise ValueError(f"handover={self.handover!r} must be one of {', '.join(HANDOVERS)}")
        if self.sequence_length < 1:
            raise ValueError(f"sequence_length={self.sequence_length} must be positive")


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
    sources = tuple(recipe_sources(recipe))
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
    entries = [
        entry
        for source in settings.sources
        for entry in (
            _train_entry(workspace, settings, source),
            _valid_entry(workspace, settings, source),
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
    dataset = _dataset_json(workspace, settings.sources[0])
    readable = [entry for entry in entries if entry.is_readable]
    valid = [entry.prefix for entry in readable if entry.split == "valid"]
    tokenizer = workspace.run.folder / layout.TOKENIZER / layout.TOKENIZER_FILE
    return {
        "schema_version": 1,
        "arm": settings.arm,
        **asdict(settings.config),
        "train": [entry.prefix for entry in readable if entry.split == "train"],
        "valid": valid,
        "test": valid,
        # One pass. With a single prefix Megatron repeats documents for whoever asks for more.
        "num_train_samples": sum(e.num_samples for e in readable if e.split == "train"),
        "keep_masks": {entry.prefix: entry.keep_mask for entry in readable if entry.keep_mask},
        "entries": [asdict(entry) for entry in readable],
        "left_out": [asdict(entry) for entry in entries if not entry.is_readable],
        "tokenizer": _relative(workspace, tokenizer),
        "eod_id": dataset["eod_id"],
        "vocab_size": dataset["vocab_size"],
    }


def _train_entry(workspace: Workspace, settings: BlendSettings, source: str) -> BlendEntry:
    mask = read_keep_mask(workspace.run.folder / layout.keep(settings.arm) / f"{source}.keep.npy")
    path_prefix = _path_prefix(workspace, source)
    prefix = workspace.folder / f"{source}-{mask.info.selection_digest[:8]}"
    match settings.config.handover:
        case "index_view":
            index = write_index_view(path_prefix, mask, prefix)
        case "physical_copy":
            index = write_physical_copy(path_prefix, mask, prefix)
        case _:
            index = kept_index(checked_index(path_prefix, mask), mask.is_kept)
            return _entry(
                settings,
                source,
                "train",
                _relative(workspace, path_prefix),
                index,
                _relative(workspace, mask.path),
            )
    return _entry(settings, source, "train", prefix.name, index)


def _valid_entry(workspace: Workspace, settings: BlendSettings, source: str) -> BlendEntry:
    folder = layout.tokens(source)
    ((path, part),) = workspace.upstream_parts(folder, ".records.parquet")
    documents = read_part(path, part.digest, ["is_validation"])
    is_held_out = documents["is_validation"].to_numpy()
    path_prefix = _path_prefix(workspace, source)
    mask = _held_out_mask(path, path_prefix, is_held_out)
    prefix = workspace.folder / f"{source}-valid-{mask.info.selection_digest[:8]}"
    if settings.config.handover == "physical_copy":
        index = write_physical_copy(path_prefix, mask, prefix)
    else:
        index = write_index_view(path_prefix, mask, prefix)
    return _entry(settings, source, "valid", prefix.name, index)


def _path_prefix(workspace: Workspace, source: str) -> Path:
    ((path, _),) = workspace.upstream_parts(layout.tokens(source), ".idx")
    return path.with_suffix("")


def _held_out_mask(path: Path, path_prefix: Path, is_held_out: npt.NDArray[np.bool_]) -> KeepMask:
    """Returns the held-out documents of a source as a mask, so that they take the same way."""
    fingerprint = index_fingerprint(path_prefix)
    tokens = read_index(path_prefix).document_tokens()
    info = KeepMaskInfo(
        num_documents=len(is_held_out),
        num_kept=int(is_held_out.sum()),
        tokens_total=int(tokens.sum()),
        tokens_kept=int(tokens[is_held_out].sum()),
        idx_fingerprint=fingerprint,
        scores_fingerprint="",
        selection_digest=selection_digest(fingerprint, is_held_out),
    )
    return KeepMask(path=path, is_kept=is_held_out, info=info)


def _entry(
    settings: BlendSettings,
    source: str,
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
        source=source,
        split=split,
        prefix=prefix,
        keep_mask=keep_mask,
        num_documents=index.num_documents,
        num_tokens=num_tokens,
        num_samples=num_samples,
        tail_tokens=num_tokens - used,
    )


def _dataset_json(workspace: Workspace, source: str) -> dict[str, Any]:
    path = workspace.run.folder / layout.tokens(source) / layout.DATASET
    content: dict[str, Any] = orjson.loads(path.read_bytes())
    return content


def _relative(workspace: Workspace, path: Path) -> str:
    up = "/".join([".."] * len(Path(workspace.unit.folder).parts))
    return f"{up}/{path.relative_to(workspace.run.folder).as_posix()}"


def _log_left_out(settings: BlendSettings, entries: Sequence[BlendEntry]) -> None:
    for entry in entries:
        if not entry.is_readable:
            logger.warning(
                "blend %s: %s of %s is left out: its %d tokens fill no sequence of %d",
                settings.arm,
                entry.split,
                entry.source,
                entry.num_tokens,
                settings.config.sequence_length,
            )
