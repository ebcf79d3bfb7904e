"""A selection becomes something Megatron reads: an index view or a physical copy.

Index view     a new `.idx` listing only the kept documents, with their byte offsets into the
               untouched `.bin`, which is linked beside it: 20 bytes per kept document
Physical copy  a compact `.bin/.idx`, for other clusters and object storage

The third hand-over, `KeepMaskGPTDataset`, needs no files. All three list the kept documents in
their order, one that is to be read r times r times in a row, and so give Megatron the same samples.
Standard library and numpy only, so that a training container can use this.

Memory: the index that is read, the one that is made (20 bytes each per document of one sequence),
and 24 bytes per kept sequence between them; a physical copy adds what copying.py says.

Shape letters: D documents, S sequences, K sequences of the selection, repeated ones repeated.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mira_megatron.atomic_files import link_relative, replacing, write_json
from mira_megatron.retention.keep_masks import KeepMask, check_keep_mask
from mira_megatron.tokenization.copying import WORKERS, copy_runs, runs_of
from mira_megatron.tokenization.index_file import (
    SequenceIndex,
    bin_path,
    contiguous_pointers,
    idx_path,
    read_index_with_fingerprint,
    write_index,
)


def selected_sequences(
    index: SequenceIndex,
    is_kept: npt.NDArray[np.bool_],
    repeats_D: npt.NDArray[np.uint8] | None = None,
) -> npt.NDArray[np.int64]:
    """Returns the numbers of the selection's sequences in the order of a pass, shape (K,).

    Megatron's GPTDataset counts sequences. A document without a sequence (an empty line, in
    Megatron's own preprocessing) takes no place there, so the mask is expanded, never shifted.
    """
    return _selection(index, is_kept, repeats_D)[0]


def kept_index(
    index: SequenceIndex,
    is_kept: npt.NDArray[np.bool_],
    repeats_D: npt.NDArray[np.uint8] | None = None,
) -> SequenceIndex:
    """Returns the index of the kept documents alone, still pointing into the original .bin."""
    numbers, boundaries = _selection(index, is_kept, repeats_D)
    return SequenceIndex(
        dtype=index.dtype,
        lengths_S=index.lengths_S[numbers],
        pointers_S=index.pointers_S[numbers],
        document_indices_D=boundaries,
    )


def checked_index(path_prefix: Path, mask: KeepMask) -> SequenceIndex:
    """Returns the index of `path_prefix` after making sure that `mask` was made for it."""
    index, fingerprint = read_index_with_fingerprint(path_prefix)
    check_keep_mask(
        mask, path_prefix, num_documents=index.num_documents, idx_fingerprint=fingerprint
    )
    return index


def selected_index(path_prefix: Path, mask: KeepMask) -> SequenceIndex:
    """Returns the index of a mask's selection, checked, pointing into the .bin of `path_prefix`."""
    return kept_index(checked_index(path_prefix, mask), mask.is_kept, mask.repeats_D)


def write_index_view(
    path_prefix: Path, mask: KeepMask, view_prefix: Path, *, within: Path | None = None
) -> SequenceIndex:
    """Writes `<view_prefix>.{view.json,bin,idx}` and returns the view's index.

    The .bin is a relative link, but to one outside the folder `within` an absolute one. The marker
    file says that this is a view: Megatron's own merge and slicing assume that documents lie one
    after another, and would silently give other tokens.
    """
    view = selected_index(path_prefix, mask)
    write_json(
        marker_path(view_prefix),
        {
            "selection_digest": mask.info.selection_digest,
            "idx_fingerprint": mask.info.idx_fingerprint,
            "num_documents": view.num_documents,
            "num_tokens": view.num_tokens,
        },
    )
    link_relative(bin_path(path_prefix), bin_path(view_prefix), within=within)
    write_index(idx_path(view_prefix), view)
    return view


def write_physical_copy(
    path_prefix: Path, mask: KeepMask, copy_prefix: Path, *, workers: int = WORKERS
) -> SequenceIndex:
    """Writes a `.bin/.idx` that holds only the kept documents, and returns its index.

    A document that is repeated stands there as often, so that every tool reads the same as from a
    view. The .idx is written last; after a kill, the same call gives the same files.
    """
    kept = selected_index(path_prefix, mask)
    with replacing(bin_path(copy_prefix)) as temporary:
        temporary.unlink(missing_ok=True)
        runs = runs_of(kept.pointers_S, kept.sizes_bytes())
        copy_runs(bin_path(path_prefix), runs, temporary, workers=workers)
    compact = replace(kept, pointers_S=contiguous_pointers(kept.lengths_S, kept.dtype))
    write_index(idx_path(copy_prefix), compact)
    return compact


def marker_path(view_prefix: Path) -> Path:
    """Returns `<view_prefix>.view.json`, which an index view has and nothing else."""
    return view_prefix.with_name(f"{view_prefix.name}.view.json")


def is_view(path_prefix: Path) -> bool:
    """Returns whether a prefix is one of our index views."""
    marker = marker_path(path_prefix)
    return marker.is_file() and "selection_digest" in json.loads(marker.read_text())


def _selection(
    index: SequenceIndex,
    is_kept: npt.NDArray[np.bool_],
    repeats_D: npt.NDArray[np.uint8] | None,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Returns the sequences of a selection, shape (K,), and where its documents end among them."""
    documents = np.flatnonzero(is_kept)
    if repeats_D is not None:
        documents = np.repeat(documents, repeats_D[documents])
    if index.has_one_sequence_each():
        return documents, np.arange(len(documents) + 1)
    firsts = index.document_indices_D[documents]
    counts = index.document_indices_D[documents + 1] - firsts
    boundaries = np.zeros(len(documents) + 1, dtype=np.int64)
    np.cumsum(counts, out=boundaries[1:])
    numbers = np.arange(boundaries[-1])
    numbers += np.repeat(firsts - boundaries[:-1], counts)
    return numbers, boundaries
