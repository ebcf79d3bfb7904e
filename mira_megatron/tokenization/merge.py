"""Several token datasets become one plain `.bin/.idx`, index views included.

Reads   <prefix>.{bin,idx} of every input, ours or not; of ours also .view.json, .records.parquet
Writes  <output>.bin, .records.parquet if every input has one, and .idx last
Keeps   order as given, documents without a sequence and with several; for inputs that are no views
        the files are those of Megatron's own merge, byte for byte
Holds   the lock .<output>.lock while it compares and writes; the empty file stays

Megatron's merge copies every .bin whole and counts pointers anew, so of a view it silently makes
other documents. This one copies what the index points to. A file that exists is compared with what
would be written before anything is; a merge that was killed goes on from there.

Memory: 40 bytes per document of one sequence, 64 more per document of one input at a time, and what
copying.py says of its threads.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mira_megatron.atomic_files import replacing
from mira_megatron.file_lock import held_lock
from mira_megatron.tokenization.copying import (
    WORKERS,
    check_writable,
    copy_runs,
    has_runs,
    runs_of,
)
from mira_megatron.tokenization.handovers import marker_path
from mira_megatron.tokenization.index_file import (
    SequenceIndex,
    bin_path,
    check_covers_bin,
    check_local,
    contiguous_pointers,
    idx_path,
    index_fingerprint,
    is_index_at,
    read_index,
    records_path,
    write_index,
)
from mira_megatron.tokenization.merge_records import check_records, has_records, write_records

_MARKER_KEYS = {"idx_fingerprint", "num_documents", "num_tokens", "selection_digest"}


@dataclass(frozen=True, kw_only=True, slots=True)
class MergeInput:
    """One of the datasets that were merged."""

    path_prefix: Path
    is_view: bool
    has_records: bool  # a <prefix>.records.parquet, which a view never has
    num_documents: int
    num_tokens: int
    num_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class MergeReport:
    """What a merge made, or found made."""

    output_prefix: Path
    inputs: tuple[MergeInput, ...]
    num_documents: int
    num_tokens: int
    num_bytes: int
    records: Path | None  # None unless every input has records
    is_new: bool  # False: all files were there already

    @property
    def without_records(self) -> tuple[Path, ...]:
        """Returns the inputs because of which the output has no .records.parquet."""
        return tuple(part.path_prefix for part in self.inputs if not part.has_records)


def merge(
    prefixes: Sequence[Path],
    output_prefix: Path,
    *,
    may_repeat: bool = False,
    workers: int = WORKERS,
) -> MergeReport:
    """Writes the documents of all prefixes, in the order given, as one dataset.

    Raises ValueError or FileNotFoundError for inputs that are damaged, of different dtypes or (but
    for `may_repeat`) named twice, for object storage and for an output that exists with other
    content or that another process writes, and OSError for a folder that cannot be written to: all
    before anything is written.
    """
    _check_paths(prefixes, output_prefix, may_repeat)
    indices = [_checked_index(prefix) for prefix in prefixes]
    _check_dtypes(prefixes, indices)
    with_records = [records_path(prefix).is_file() for prefix in prefixes]
    inputs = tuple(
        MergeInput(
            path_prefix=prefix,
            is_view=_view_marker(prefix) is not None,
            has_records=has_file,
            num_documents=index.num_documents,
            num_tokens=index.num_tokens,
            num_bytes=index.num_bytes,
        )
        for prefix, index, has_file in zip(prefixes, indices, with_records, strict=True)
    )
    records = records_path(output_prefix) if all(with_records) else None
    if records is not None:
        check_records(prefixes, [index.num_documents for index in indices])
    check_writable(output_prefix.parent)
    lock = output_prefix.with_name(f".{output_prefix.name}.lock")
    with held_lock(lock, f"{lock}: another process writes {output_prefix}. Wait for it to end."):
        is_new = _place(prefixes, indices, output_prefix, records, workers)
    return MergeReport(
        output_prefix=output_prefix,
        inputs=inputs,
        num_documents=sum(part.num_documents for part in inputs),
        num_tokens=sum(part.num_tokens for part in inputs),
        num_bytes=sum(part.num_bytes for part in inputs),
        records=records,
        is_new=is_new,
    )


def materialise(view_prefix: Path, output_prefix: Path, *, workers: int = WORKERS) -> MergeReport:
    """Writes an index view as a dataset of its own, readable by every tool and without a link.

    Raises as `merge` does, and ValueError for a prefix that is a plain dataset already.
    """
    check_local(view_prefix)
    if _view_marker(view_prefix) is None and read_index(view_prefix).is_contiguous():
        raise ValueError(
            f"{view_prefix}: no index view ({marker_path(view_prefix).name} is missing, and its "
            "documents lie one after another): there is nothing to materialise. Copy the files."
        )
    return merge([view_prefix], output_prefix, workers=workers)


def joined(indices: Sequence[SequenceIndex]) -> SequenceIndex:
    """Returns the index of all documents in order, lying one after another in one .bin."""
    shifts = np.cumsum([0, *(len(index.lengths_S) for index in indices)])
    boundaries = [index.document_indices_D[1:] for index in indices]
    document_indices_D = np.concatenate([np.zeros(1, np.int64), *boundaries])
    at = 1
    for part, shift in zip(boundaries, shifts.tolist(), strict=False):
        document_indices_D[at : at + len(part)] += shift
        at += len(part)
    lengths_S = np.concatenate([index.lengths_S for index in indices])
    return SequenceIndex(
        dtype=indices[0].dtype,
        lengths_S=lengths_S,
        pointers_S=contiguous_pointers(lengths_S, indices[0].dtype),
        document_indices_D=document_indices_D,
    )


def _check_paths(prefixes: Sequence[Path], output_prefix: Path, may_repeat: bool) -> None:
    if not prefixes:
        raise ValueError(f"{output_prefix}: nothing to merge; name at least one prefix")
    for path in (*prefixes, output_prefix):
        check_local(path)
    resolved = [idx_path(prefix).resolve() for prefix in prefixes]
    for number, path in enumerate(resolved):
        if path in resolved[:number] and not may_repeat:
            raise ValueError(
                f"{prefixes[number]}: named twice, so its documents would be there twice. Leave "
                "one out, or say that documents may be repeated."
            )
        if path == idx_path(output_prefix).resolve():
            raise ValueError(
                f"{output_prefix}: is an input and the output. Name another output: inputs are "
                "never changed."
            )
    if marker_path(output_prefix).exists() or bin_path(output_prefix).is_symlink():
        raise ValueError(
            f"{output_prefix}: an index view lies there ({marker_path(output_prefix).name} or a "
            "linked .bin). Name another output, or delete the view."
        )


def _checked_index(path_prefix: Path) -> SequenceIndex:
    """Returns an input's index after comparing it with its .bin, or with what its view says."""
    index = read_index(path_prefix)
    marker = _view_marker(path_prefix)
    if marker is not None:
        _check_view(path_prefix, index, marker)
    elif bin_path(path_prefix).is_file():
        check_covers_bin(index, bin_path(path_prefix).stat().st_size, path_prefix)
    return index


def _view_marker(path_prefix: Path) -> Mapping[str, Any] | None:
    """Returns what an index view says of itself, None for a prefix that is no view."""
    path = marker_path(path_prefix)
    if not path.is_file():
        return None
    try:
        marker = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(
            f"{path}: no JSON ({error}). Make the view anew with `mira blend`."
        ) from error
    if not isinstance(marker, dict) or not marker.keys() >= _MARKER_KEYS:
        raise ValueError(
            f"{path}: expected the keys {', '.join(sorted(_MARKER_KEYS))} of an index view. Make "
            "the view anew with `mira blend`, or move the file away if the pair is no view."
        )
    return marker


def _check_view(view_prefix: Path, index: SequenceIndex, marker: Mapping[str, Any]) -> None:
    counts = (marker["num_documents"], marker["num_tokens"])
    if counts != (index.num_documents, index.num_tokens):
        raise ValueError(
            f"{idx_path(view_prefix)}: {index.num_documents:,} documents with {index.num_tokens:,} "
            f"tokens, but {marker_path(view_prefix)} says {counts[0]:,} with {counts[1]:,}. Make "
            "the view anew with `mira blend`."
        )
    if not bin_path(view_prefix).is_symlink():
        return
    target = view_prefix.parent / bin_path(view_prefix).readlink()
    original = target.with_name(target.name.removesuffix(".bin"))
    if idx_path(original).is_file() and index_fingerprint(original) != marker["idx_fingerprint"]:
        raise ValueError(
            f"{view_prefix}: a view of an index with fingerprint {marker['idx_fingerprint']}, but "
            f"{idx_path(original)} has {index_fingerprint(original)}: the tokens were made anew. "
            "Make the view anew with `mira select` and `mira blend`."
        )


def _check_dtypes(prefixes: Sequence[Path], indices: Sequence[SequenceIndex]) -> None:
    for prefix, index in zip(prefixes, indices, strict=True):
        if index.dtype != indices[0].dtype:
            raise ValueError(
                f"{prefix}: tokens are {index.dtype}, those of {prefixes[0]} {indices[0].dtype}. "
                "One dataset has one dtype, and ids of two tokenizers mean different things: "
                "tokenise both alike."
            )


def _place(
    prefixes: Sequence[Path],
    indices: Sequence[SequenceIndex],
    output_prefix: Path,
    records: Path | None,
    workers: int,
) -> bool:
    """Writes the output's files that are not there, and returns whether any was missing."""
    index = joined(indices)
    files: list[tuple[Path, Callable[[Path], bool], Callable[[Path], None]]] = [
        (
            bin_path(output_prefix),
            lambda path: _has_tokens(path, prefixes, indices, workers),
            lambda path: _write_tokens(path, prefixes, indices, workers),
        )
    ]
    if records is not None:
        files.append(
            (
                records,
                lambda path: has_records(path, prefixes),
                lambda path: write_records(path, prefixes),
            )
        )
    files.append(
        (
            idx_path(output_prefix),
            lambda path: is_index_at(path, index),
            lambda path: write_index(path, index),
        )
    )
    missing = [(path, write) for path, _, write in files if not path.exists()]
    for path, is_as_expected, _ in files:
        if path.exists() and not is_as_expected(path):
            raise ValueError(
                f"{path}: exists with other content than this merge would write. Name another "
                "output, or delete it."
            )
    for path, write in missing:
        write(path)
    return bool(missing)


def _write_tokens(
    path: Path, prefixes: Sequence[Path], indices: Sequence[SequenceIndex], workers: int
) -> None:
    with replacing(path) as temporary:
        temporary.unlink(missing_ok=True)  # of a merge that was killed
        temporary.touch()
        at = 0
        for prefix, index in zip(prefixes, indices, strict=True):
            runs = runs_of(index.pointers_S, index.sizes_bytes())
            at += copy_runs(bin_path(prefix), runs, temporary, at=at, workers=workers)


def _has_tokens(
    path: Path, prefixes: Sequence[Path], indices: Sequence[SequenceIndex], workers: int
) -> bool:
    if path.stat().st_size != sum(index.num_bytes for index in indices):
        return False
    at = 0
    for prefix, index in zip(prefixes, indices, strict=True):
        runs = runs_of(index.pointers_S, index.sizes_bytes())
        if not has_runs(bin_path(prefix), runs, path, at=at, workers=workers):
            return False
        at += index.num_bytes
    return True
