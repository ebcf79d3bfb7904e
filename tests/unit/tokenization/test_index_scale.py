"""Twenty million documents and 100 GB of tokens, on a disk that has neither to spare.

The .bin is sparse: only the documents that are read back are there. Everything runs in a process of
its own, so that its memory is known.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from megatron.core.datasets.indexed_dataset import IndexedDataset

from mira_megatron.retention.keep_masks import read_keep_mask, write_keep_mask
from mira_megatron.tokenization.handovers import write_index_view, write_physical_copy
from mira_megatron.tokenization.index_file import (
    SequenceIndex,
    bin_path,
    idx_path,
    index_fingerprint,
    one_sequence_per_document,
    read_index,
    write_index,
)
from mira_megatron.tokenization.merge import materialise

pytestmark = [pytest.mark.megatron, pytest.mark.integration]

NUM_DOCUMENTS = 20_000_000
MEAN_TOKENS = 1250  # int32: 100 GB
NUM_READ_BACK = 400
# In tokens: beyond them an int32 or a uint32 of tokens overflows; of bytes, long before.
BOUNDARIES = (2**31, 2**32)
# The index (20 bytes), the view of half of it (10), what lies between them, and the mask.
MAX_BYTES_PER_DOCUMENT = 100


def test_selection_of_20_million_documents_reads_back_right(tmp_path: Path) -> None:
    index = one_sequence_per_document(document_lengths(), np.dtype(np.int32))
    assert index.num_bytes > 99e9
    numbers = chosen(index)
    write_sparse(tmp_path / "a", index, numbers)
    is_kept = np.random.default_rng(2).random(NUM_DOCUMENTS) < 0.5
    is_kept[numbers[::2]] = True
    write_mask(tmp_path / "a", index, is_kept)
    lengths, pointers = index.lengths_S[numbers], index.pointers_S[numbers]
    del index  # what the process below takes must find room beside it

    peak_bytes = peak_of_making_view(tmp_path)
    assert peak_bytes < MAX_BYTES_PER_DOCUMENT * NUM_DOCUMENTS
    places = np.cumsum(is_kept) - 1
    view = IndexedDataset(str(tmp_path / "view"))
    assert len(view) == is_kept.sum()
    kept = [at for at, number in enumerate(numbers.tolist()) if is_kept[number]]
    for at in kept:
        assert np.array_equal(view[int(places[numbers[at]])], document(numbers[at], lengths[at]))
    for boundary in BOUNDARIES:
        sides = pointers[kept] // 4 > boundary
        assert sides.any()
        assert not sides.all()


def test_few_documents_of_100_gb_are_copied_and_materialised_right(tmp_path: Path) -> None:
    index = one_sequence_per_document(document_lengths(), np.dtype(np.int32))
    numbers = chosen(index)
    write_sparse(tmp_path / "a", index, numbers)
    is_kept = np.zeros(NUM_DOCUMENTS, dtype=bool)
    is_kept[numbers] = True
    write_mask(tmp_path / "a", index, is_kept)
    mask = read_keep_mask(tmp_path / "a.keep.npy")
    write_physical_copy(tmp_path / "a", mask, tmp_path / "copy")
    write_index_view(tmp_path / "a", mask, tmp_path / "view")
    materialise(tmp_path / "view", tmp_path / "plain")
    copy = IndexedDataset(str(tmp_path / "copy"))
    for place, number in enumerate(numbers.tolist()):
        assert np.array_equal(copy[place], document(number, index.lengths_S[number]))
    for path in (bin_path, idx_path):
        assert path(tmp_path / "plain").read_bytes() == path(tmp_path / "copy").read_bytes()


def document_lengths() -> npt.NDArray[np.int32]:
    return np.random.default_rng(0).integers(1, 2 * MEAN_TOKENS, NUM_DOCUMENTS, dtype=np.int32)


def chosen(index: SequenceIndex) -> npt.NDArray[np.int64]:
    """Returns documents in order: the ends, those at every boundary, and others anywhere."""
    starts = index.pointers_S // index.dtype.itemsize
    at_boundaries = [
        np.searchsorted(starts, boundary) + np.arange(-4, 4) for boundary in BOUNDARIES
    ]
    anywhere = np.random.default_rng(1).integers(0, NUM_DOCUMENTS, NUM_READ_BACK)
    ends = np.array([0, 1, NUM_DOCUMENTS - 2, NUM_DOCUMENTS - 1])
    return np.unique(np.concatenate([*at_boundaries, anywhere, ends]))


def document(number: int, num_tokens: int) -> npt.NDArray[np.int32]:
    random = np.random.default_rng(number)
    return random.integers(1, 150_000, num_tokens, dtype=np.int32)


def write_sparse(path_prefix: Path, index: SequenceIndex, numbers: npt.NDArray[np.int64]) -> None:
    write_index(idx_path(path_prefix), index)
    with bin_path(path_prefix).open("wb") as file:
        os.truncate(file.fileno(), index.num_bytes)
        for number in numbers.tolist():
            file.seek(int(index.pointers_S[number]))
            file.write(document(number, index.lengths_S[number]).tobytes())


def write_mask(path_prefix: Path, index: SequenceIndex, is_kept: npt.NDArray[np.bool_]) -> None:
    write_keep_mask(
        path_prefix.with_name(f"{path_prefix.name}.keep.npy"),
        is_kept,
        index.document_tokens(),
        idx_fingerprint=index_fingerprint(path_prefix),
        scores_fingerprint="",
    )


def peak_of_making_view(folder: Path) -> int:
    """Makes `view` of `a` in a process of its own, and returns its peak memory in bytes."""
    # Not getrusage: a process starts there with the peak of the one that started it.
    script = (
        "import sys; from pathlib import Path\n"
        "from mira_megatron.retention.keep_masks import read_keep_mask\n"
        "from mira_megatron.tokenization.handovers import write_index_view\n"
        "folder = Path(sys.argv[1])\n"
        "write_index_view(folder / 'a', read_keep_mask(folder / 'a.keep.npy'), folder / 'view')\n"
        "print(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])\n"
    )
    command = [sys.executable, "-c", script, str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return int(done.stdout) * 1024


def test_index_of_20_million_documents_is_read_as_it_was_written(tmp_path: Path) -> None:
    index = one_sequence_per_document(document_lengths(), np.dtype(np.int32))
    write_index(idx_path(tmp_path / "a"), index)
    bin_path(tmp_path / "a").touch()
    os.truncate(bin_path(tmp_path / "a"), index.num_bytes - 1)
    with pytest.raises(ValueError, match=rf"points to byte {index.num_bytes:,}, but"):
        read_index(tmp_path / "a")
    os.truncate(bin_path(tmp_path / "a"), index.num_bytes)
    again = read_index(tmp_path / "a")
    for name in ("lengths_S", "pointers_S", "document_indices_D"):
        assert np.array_equal(getattr(again, name), getattr(index, name))
    assert again.is_contiguous()
    assert again.has_one_sequence_each()
