"""A selection becomes something Megatron reads: an index view or a physical copy.

Index view     a new `.idx` listing only the kept documents, with their byte offsets into the
               untouched `.bin`, which is linked beside it: 20 bytes per kept document
Physical copy  a compact `.bin/.idx`, for other clusters and object storage

The third hand-over, `KeepMaskGPTDataset`, needs no files. All three give Megatron the same samples.
Standard library and numpy only, so that a training container can use this.
"""

from __future__ import annotations

import json
import mmap
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mira_megatron.atomic_files import link_relative, replacing, write_json
from mira_megatron.retention.keep_masks import KeepMask, check_keep_mask
from mira_megatron.tokenization.index_file import (
    SequenceIndex,
    bin_path,
    idx_path,
    index_fingerprint,
    read_index,
    write_index,
)

_COPY_BYTES = 64 << 20


def kept_sequences(index: SequenceIndex, is_kept: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Returns the keep mask per sequence, shape (S,).

    Megatron's GPTDataset counts sequences. A document without a sequence (an empty line, in
    Megatron's own preprocessing) takes no place there, so the mask is expanded, never shifted.
    """
    return np.repeat(is_kept, np.diff(index.document_indices_D))


def kept_index(index: SequenceIndex, is_kept: npt.NDArray[np.bool_]) -> SequenceIndex:
    """Returns the index of the kept documents alone, still pointing into the original .bin."""
    sequences = kept_sequences(index, is_kept)
    num_sequences_kept = np.diff(index.document_indices_D)[is_kept]
    return replace(
        index,
        lengths_S=index.lengths_S[sequences],
        pointers_S=index.pointers_S[sequences],
        document_indices_D=np.concatenate([[0], np.cumsum(num_sequences_kept)]).astype(np.int64),
    )


def checked_index(path_prefix: Path, mask: KeepMask) -> SequenceIndex:
    """Returns the index of `path_prefix` after making sure that `mask` was made for it."""
    index = read_index(path_prefix)
    check_keep_mask(
        mask,
        path_prefix,
        num_documents=index.num_documents,
        idx_fingerprint=index_fingerprint(path_prefix),
    )
    return index


def write_index_view(path_prefix: Path, mask: KeepMask, view_prefix: Path) -> SequenceIndex:
    """Writes `<view_prefix>.{view.json,bin,idx}` and returns the view's index.

    The .bin is a relative link. The marker file says that this is a view: Megatron's own merge and
    slicing assume that documents lie one after another, and would silently give other tokens.
    """
    view = kept_index(checked_index(path_prefix, mask), mask.is_kept)
    write_json(
        view_prefix.with_name(f"{view_prefix.name}.view.json"),
        {
            "selection_digest": mask.info.selection_digest,
            "idx_fingerprint": mask.info.idx_fingerprint,
            "num_documents": view.num_documents,
            "num_tokens": view.num_tokens,
        },
    )
    link_relative(bin_path(path_prefix), bin_path(view_prefix))
    write_index(idx_path(view_prefix), view)
    return view


def write_physical_copy(path_prefix: Path, mask: KeepMask, copy_prefix: Path) -> SequenceIndex:
    """Writes a `.bin/.idx` that holds only the kept documents, and returns its index."""
    kept = kept_index(checked_index(path_prefix, mask), mask.is_kept)
    sizes = kept.lengths_S.astype(np.int64) * kept.dtype.itemsize
    with replacing(bin_path(copy_prefix)) as temporary:
        _copy_ranges(bin_path(path_prefix), temporary, kept.pointers_S, sizes)
    ends = np.cumsum(sizes)
    compact = replace(kept, pointers_S=ends - sizes)
    write_index(idx_path(copy_prefix), compact)
    return compact


def is_view(path_prefix: Path) -> bool:
    """Returns whether a prefix is one of our index views."""
    marker = path_prefix.with_name(f"{path_prefix.name}.view.json")
    return marker.is_file() and "selection_digest" in json.loads(marker.read_text())


def _copy_ranges(
    source: Path, target: Path, starts: npt.NDArray[np.int64], sizes: npt.NDArray[np.int64]
) -> None:
    """Copies byte ranges in order, neighbouring ones as one."""
    with source.open("rb") as original, target.open("wb") as copy:
        if not sizes.sum():
            return
        ends = starts + sizes
        is_run_start = np.concatenate([[True], starts[1:] != ends[:-1]])
        run_starts = starts[is_run_start]
        run_ends = ends[np.concatenate([is_run_start[1:], [True]])]
        with mmap.mmap(original.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            for start, end in zip(run_starts.tolist(), run_ends.tolist(), strict=True):
                for at in range(start, end, _COPY_BYTES):
                    copy.write(mapped[at : min(at + _COPY_BYTES, end)])
