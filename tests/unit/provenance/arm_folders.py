"""Run folders for tests with a token dataset, keep masks and a blend, and nothing before them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from token_datasets import EOD, VOCAB_SIZE, write_with_megatron

from mira_megatron import layout
from mira_megatron.atomic_files import write_json
from mira_megatron.manifest import Counts, Manifest, list_parts, output_digest, write_manifest
from mira_megatron.records import DOCUMENT_SCHEMA
from mira_megatron.retention.keep_masks import read_keep_mask, write_keep_mask
from mira_megatron.tokenization.handovers import (
    selected_index,
    write_index_view,
    write_physical_copy,
)
from mira_megatron.tokenization.index_file import (
    SequenceIndex,
    bin_path,
    index_fingerprint,
    read_index,
)
from mira_megatron.tokenization.token_dataset import (
    TokenDataset,
    TokenPrefix,
    prefix_name,
    write_token_dataset,
)

SEQUENCE_LENGTH = 8


@dataclass(frozen=True, kw_only=True)
class Documents:
    """One prefix: per document its tokens, times in training, whether held out, and its text."""

    lengths: Sequence[int]
    times: Sequence[int]
    held_out: Sequence[int]  # document numbers
    texts: Mapping[int, int] = field(default_factory=dict)  # document -> text; else one of its own


def documents_of(lengths: Sequence[int], dropped: Sequence[int], held_out: Sequence[int]) -> Any:
    """Returns documents that are all kept once but for those dropped and held out."""
    left = {*dropped, *held_out}
    times = [int(number not in left) for number in range(len(lengths))]
    return Documents(lengths=lengths, times=times, held_out=held_out)


def write_source(run_folder: Path, source: str, prefixes: Sequence[Documents]) -> TokenDataset:
    """Writes tokens/<source> and returns what its dataset.json says."""
    folder = run_folder / layout.tokens(source)
    written = []
    for position, documents in enumerate(prefixes):
        name = prefix_name(source, position, len(prefixes))
        path_prefix = folder / f"{name}-00000000"
        write_with_megatron(path_prefix, documents.lengths)
        index = read_index(path_prefix)
        table = folder / f"{name}.records.parquet"
        pq.write_table(_table(name, documents), table)
        written.append(
            TokenPrefix(
                name=name,
                source=source,
                path_prefix=path_prefix,
                documents=table,
                idx_fingerprint=index_fingerprint(path_prefix),
                num_documents=index.num_documents,
                num_tokens=index.num_tokens,
                num_bytes=bin_path(path_prefix).stat().st_size,
            )
        )
    dataset = TokenDataset(
        source=source, eod_id=EOD, vocab_size=VOCAB_SIZE, prefixes=tuple(written)
    )
    write_token_dataset(folder, dataset, {})
    return dataset


def write_arm(
    run_folder: Path,
    sources: Mapping[str, Sequence[Documents]],
    *,
    arm: str = "half",
    handover: str = "index_view",
    train_weights: Sequence[float] | None = None,
) -> dict[str, Any]:
    """Writes the masks and the blend of an arm over sources already written; returns blend.json."""
    folder, keep = run_folder / layout.blend(arm), run_folder / layout.keep(arm)
    entries = []
    for source, prefixes in sources.items():
        for position, documents in enumerate(prefixes):
            name = prefix_name(source, position, len(prefixes))
            path_prefix = run_folder / layout.tokens(source) / f"{name}-00000000"
            is_held_out = np.isin(np.arange(len(documents.lengths)), documents.held_out)
            for split, times in (("train", documents.times), ("valid", is_held_out.astype(int))):
                mask_folder = keep if split == "train" else keep / "held_out"
                mask = _write_mask(mask_folder / f"{name}.keep.npy", path_prefix, np.array(times))
                prefix = folder / f"{name}-{split}-{mask.info.selection_digest[:8]}"
                if handover == "keep_mask_dataset" and split == "train":
                    index = selected_index(path_prefix, mask)
                    given = f"../../tokens/{source}/{path_prefix.name}"
                    keep_mask = f"../../keep/{arm}/{name}.keep.npy"
                else:
                    write = write_physical_copy if handover == "physical_copy" else write_index_view
                    index, given, keep_mask = write(path_prefix, mask, prefix), prefix.name, ""
                entries.append(_entry(source, name, split, given, keep_mask, index))
    content = {
        "arm": arm,
        "handover": handover,
        "sequence_length": SEQUENCE_LENGTH,
        "eod_id": EOD,
        "vocab_size": VOCAB_SIZE,
        "train": [entry["prefix"] for entry in entries if entry["split"] == "train"],
        "valid": [entry["prefix"] for entry in entries if entry["split"] == "valid"],
        "test": [entry["prefix"] for entry in entries if entry["split"] == "valid"],
        "train_weights": train_weights,
        "num_train_samples": sum(e["num_samples"] for e in entries if e["split"] == "train"),
        "keep_masks": {e["prefix"]: e["keep_mask"] for e in entries if e["keep_mask"]},
        "entries": entries,
        "left_out": [],
    }
    write_json(folder / layout.BLEND, content)
    return content


def write_run(
    run_folder: Path, sources: Mapping[str, Sequence[Documents]], **changes: Any
) -> dict[str, Any]:
    """Writes sources and one arm over them; returns blend.json."""
    for source, prefixes in sources.items():
        write_source(run_folder, source, prefixes)
    return write_arm(run_folder, sources, **changes)


def write_manifests(run_folder: Path) -> None:
    """Writes the manifest of every token dataset, mask folder and blend, as stages end with one."""
    digests: dict[str, str] = {}
    for stage in ("tokens", "keep", "blends"):
        for folder in sorted((run_folder / stage).iterdir()):
            parts = list_parts(folder, {})
            digests[f"{stage}/{folder.name}"] = output_digest(parts)
            manifest = Manifest(
                stage=stage,
                unit=folder.name,
                stage_version=1,
                config={},
                inputs=dict(digests),
                fingerprint="0",
                output_digest=output_digest(parts),
                parts=parts,
                counts=Counts(num_in=0, num_out=0),
                seconds=0.0,
                code={},
                packages={},
            )
            write_manifest(folder, manifest)


def selecting(documents: Documents, times: Sequence[int]) -> Documents:
    """Returns the same documents, selected otherwise."""
    return replace(documents, times=times)


def _table(name: str, documents: Documents) -> pa.Table:
    numbers = range(len(documents.lengths))
    own = sum(map(ord, name)) * 10_000
    texts = [documents.texts.get(number, own + number) for number in numbers]
    columns = {
        "record_id": [f"{name}/{number}" for number in numbers],
        "num_tokens": list(documents.lengths),
        "is_validation": [number in documents.held_out for number in numbers],
        "text_hash": [text.to_bytes(16, "big") for text in texts],
    }
    return pa.table(columns, schema=DOCUMENT_SCHEMA)


def _write_mask(path: Path, path_prefix: Path, times: npt.NDArray[np.int64]) -> Any:
    write_keep_mask(
        path,
        times > 0,
        read_index(path_prefix).document_tokens(),
        idx_fingerprint=index_fingerprint(path_prefix),
        scores_fingerprint="0",
        repeats_D=times.astype(np.uint8) if (times > 1).any() else None,
    )
    return read_keep_mask(path)


def _entry(
    source: str, name: str, split: str, prefix: str, keep_mask: str, index: SequenceIndex
) -> dict[str, Any]:
    num_samples = max(index.num_tokens - 1, 0) // SEQUENCE_LENGTH
    return {
        "source": source,
        "name": name,
        "split": split,
        "prefix": prefix,
        "keep_mask": keep_mask,
        "num_documents": index.num_documents,
        "num_tokens": index.num_tokens,
        "num_samples": num_samples,
    }
