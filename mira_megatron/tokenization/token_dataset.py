"""`dataset.json`: which `.bin/.idx` pairs hold a source's tokens, ours or adopted.

Standard library and numpy only: whoever selects, blends or trains reads it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mira_megatron import layout
from mira_megatron.atomic_files import write_json
from mira_megatron.tokenization.index_file import bin_path, idx_path, read_index_with_fingerprint

SCHEMA_VERSION = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenPrefix:
    """One `.bin/.idx` pair of a source."""

    name: str  # of masks, views and blend entries: the source's, or <source>.<i> of several
    source: str
    path_prefix: Path
    documents: Path  # parquet, row i = document i (records.DOCUMENT_SCHEMA)
    idx_fingerprint: str
    num_documents: int
    num_tokens: int
    num_bytes: int  # of the .bin
    mtime_ns: int | None = None  # of an adopted .bin; ours carry a fingerprint in their names


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenDataset:
    """All of a source's tokens, in document order."""

    source: str
    eod_id: int
    vocab_size: int
    prefixes: tuple[TokenPrefix, ...]

    @property
    def num_documents(self) -> int:
        """Returns the documents of all prefixes."""
        return sum(prefix.num_documents for prefix in self.prefixes)


def prefix_name(source: str, position: int, num_prefixes: int) -> str:
    """Returns the name of a source's prefix; no source's name holds a dot."""
    return source if num_prefixes == 1 else f"{source}.{position}"


def described_prefix(source: str, name: str, path_prefix: Path, documents: Path) -> TokenPrefix:
    """Returns what `dataset.json` says of a pair that lies on disk."""
    index, fingerprint = read_index_with_fingerprint(path_prefix)
    return TokenPrefix(
        name=name,
        source=source,
        path_prefix=path_prefix,
        documents=documents,
        idx_fingerprint=fingerprint,
        num_documents=index.num_documents,
        num_tokens=index.num_tokens,
        num_bytes=bin_path(path_prefix).stat().st_size,
    )


def write_token_dataset(
    folder: Path, dataset: TokenDataset, totals: Mapping[str, int | float]
) -> None:
    """Writes `dataset.json`; paths inside `folder` are written relative to it."""
    content = {
        "schema_version": SCHEMA_VERSION,
        "eod_id": dataset.eod_id,
        "vocab_size": dataset.vocab_size,
        **totals,
        "prefixes": [_written(folder, prefix) for prefix in dataset.prefixes],
    }
    write_json(folder / layout.DATASET, content)


def read_token_dataset(folder: Path) -> TokenDataset:
    """Returns what `tokens/<source>/dataset.json` says, its paths made absolute."""
    path = folder / layout.DATASET
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{path}: no such file; `mira tokenize` or `mira adopt` makes it"
        ) from error
    if content.get("schema_version") != SCHEMA_VERSION:
        raise ValueError(
            f"{path}: schema_version {content.get('schema_version')}, expected {SCHEMA_VERSION}. "
            f"Delete {folder} to have it made anew."
        )
    return TokenDataset(
        source=folder.name,
        eod_id=content["eod_id"],
        vocab_size=content["vocab_size"],
        prefixes=tuple(_read(folder, entry) for entry in content["prefixes"]),
    )


def check_one_vocabulary(datasets: Sequence[TokenDataset]) -> None:
    """Raises ValueError where sources were made with other document ends or vocabularies."""
    first = datasets[0]
    for other in datasets[1:]:
        if (other.eod_id, other.vocab_size) != (first.eod_id, first.vocab_size):
            raise ValueError(
                f"sources {first.source} (EOD {first.eod_id}, {first.vocab_size:,} ids) and "
                f"{other.source} (EOD {other.eod_id}, {other.vocab_size:,} ids) were tokenised "
                "differently; one model cannot read both"
            )


def check_no_pair_twice(datasets: Sequence[TokenDataset]) -> None:
    """Raises ValueError where two sources lead to one pair: its documents would count twice.

    Views of one .bin are pairs of their own: they may list different documents.
    """
    names: dict[object, str] = {}
    for dataset in datasets:
        for prefix in dataset.prefixes:
            path = idx_path(prefix.path_prefix).resolve()
            # An .idx may be copied, with the .bin linked beside the copy.
            content = (bin_path(prefix.path_prefix).resolve(), prefix.idx_fingerprint)
            first = names.get(path, names.get(content))
            if first is not None:
                raise ValueError(
                    f"{path} belongs to {first} and to {prefix.name}; every document in it "
                    "would be trained on twice. Adopt it once."
                )
            names |= {path: prefix.name, content: prefix.name}


def check_unchanged(prefix: TokenPrefix) -> None:
    """Raises ValueError where an adopted `.bin` has another size or time than when it was read."""
    if prefix.mtime_ns is None:
        return
    path = bin_path(prefix.path_prefix)
    if not path.is_file():
        raise ValueError(
            f"{path}: no such file, but {prefix.name} was adopted from it. Restore it."
        )
    status = path.stat()
    if (status.st_size, status.st_mtime_ns) != (prefix.num_bytes, prefix.mtime_ns):
        raise ValueError(
            f"{path}: {status.st_size:,} bytes, modified at {status.st_mtime_ns} ns, but when it "
            f"was adopted as {prefix.name} it had {prefix.num_bytes:,}, modified at "
            f"{prefix.mtime_ns} ns: its tokens may be others. `mira run` adopts it anew."
        )


def _written(folder: Path, prefix: TokenPrefix) -> dict[str, Any]:
    path_prefix = prefix.path_prefix
    is_own = path_prefix.parent == folder
    return {
        "name": prefix.name,
        "path_prefix": path_prefix.name if is_own else os.fspath(path_prefix),
        "documents": prefix.documents.name,
        "idx_fingerprint": prefix.idx_fingerprint,
        "num_documents": prefix.num_documents,
        "num_tokens": prefix.num_tokens,
        "num_bytes": prefix.num_bytes,
        **({} if prefix.mtime_ns is None else {"mtime_ns": prefix.mtime_ns}),
    }


def _read(folder: Path, entry: Mapping[str, Any]) -> TokenPrefix:
    return TokenPrefix(
        name=entry["name"],
        source=folder.name,
        path_prefix=folder / entry["path_prefix"],  # an absolute one stays as it is
        documents=folder / entry["documents"],
        idx_fingerprint=entry["idx_fingerprint"],
        num_documents=entry["num_documents"],
        num_tokens=entry["num_tokens"],
        num_bytes=entry["num_bytes"],
        mtime_ns=entry.get("mtime_ns"),
    )
