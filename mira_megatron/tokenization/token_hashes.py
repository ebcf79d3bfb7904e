"""One pass over a `.bin`: a hash per document, and whether its tokens are those of a tokenizer.

Holds one block of tokens in memory, or the longest document where that is longer.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from mira_megatron.tokenization.index_file import SequenceIndex, bin_path

_BLOCK_TOKENS = 8 << 20
_IDS_AT_ONCE = 100_000


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenCheck:
    """What a tokenizer says about ids."""

    eod_id: int
    vocab_size: int


def hash_documents(
    path_prefix: Path, index: SequenceIndex, check: TokenCheck
) -> tuple[pa.Array, int]:
    """Returns xxh3-128 of each document's ids without its EOD, and how many have no EOD at the end.

    Ids are hashed as little-endian int32, so that equal documents of a uint16 and an int32 dataset
    have equal hashes. Documents without a token count as ended. Raises ValueError, naming document
    and id, for an id the tokenizer does not have.
    """
    hashes = bytearray()
    num_without_eod = 0
    for first, ids, ends in _blocks(path_prefix, index):
        _check_ids(path_prefix, first, ids, ends, check)
        # Only now: an int32 cannot hold every id of a wider file.
        ids = np.ascontiguousarray(ids, dtype="<i4")
        for start, end in pairwise(ends.tolist()):
            tokens = ids[start:end]
            if len(tokens):
                has_eod = tokens[-1] == check.eod_id
                num_without_eod += not has_eod
                tokens = tokens[: len(tokens) - has_eod]
            hashes += xxhash.xxh3_128_digest(tokens.data)
    return _fixed_binary(bytes(hashes)), num_without_eod


def hash_ids(record_ids: pa.ChunkedArray) -> pa.Array:
    """Returns xxh3-128 of each record id: what stands for a text that was not read."""
    digests = bytearray()
    # In slices: as Python strings the ids of a large corpus would fill the memory.
    for start in range(0, len(record_ids), _IDS_AT_ONCE):
        names = record_ids.slice(start, _IDS_AT_ONCE).to_pylist()
        digests += b"".join(xxhash.xxh3_128_digest(name.encode()) for name in names)
    return _fixed_binary(bytes(digests))


def _fixed_binary(content: bytes) -> pa.Array:
    return pa.Array.from_buffers(pa.binary(16), len(content) // 16, [None, pa.py_buffer(content)])


def _blocks(
    path_prefix: Path, index: SequenceIndex
) -> Iterator[tuple[int, npt.NDArray[np.integer], npt.NDArray[np.int64]]]:
    """Yields the number of a block's first document, its ids, and where documents end in them.

    Ids have the dtype of the file; the ends of n documents are n + 1 numbers from 0.
    """
    boundaries = index.document_indices_D
    lengths = index.lengths_S.astype(np.int64)
    sequence_ends = np.concatenate([[0], np.cumsum(lengths)])
    document_ends = sequence_ends[boundaries]
    with bin_path(path_prefix).open("rb", buffering=0) as file:
        first = 0
        while first < index.num_documents:
            limit = document_ends[first] + _BLOCK_TOKENS
            last = int(np.searchsorted(document_ends, limit, side="right")) - 1
            last = max(last, first + 1)
            sequences = range(int(boundaries[first]), int(boundaries[last]))
            ids = _read_sequences(file.fileno(), index, sequences)
            yield first, ids, document_ends[first : last + 1] - document_ends[first]
            first = last


def _read_sequences(file: int, index: SequenceIndex, sequences: range) -> npt.NDArray[np.integer]:
    """Returns the ids of neighbouring sequences, one after another; a run of bytes is one read."""
    own = slice(sequences.start, sequences.stop)
    starts = index.pointers_S[own]
    ends = starts + index.lengths_S[own].astype(np.int64) * index.dtype.itemsize
    if not len(starts):
        return np.zeros(0, dtype=index.dtype)
    is_run_start = np.append(True, starts[1:] != ends[:-1])
    run_starts, run_ends = starts[is_run_start], ends[np.append(is_run_start[1:], True)]
    pieces = [
        np.frombuffer(_pread(file, start, end - start), index.dtype.newbyteorder("<"))
        for start, end in zip(run_starts.tolist(), run_ends.tolist(), strict=True)
    ]
    return np.concatenate(pieces)


def _pread(file: int, start: int, num_bytes: int) -> bytearray:
    content = bytearray(num_bytes)
    view = memoryview(content)
    while view:
        read = os.preadv(file, [view], start)
        if not read:
            raise ValueError("the .bin became shorter while it was read")
        start, view = start + read, view[read:]
    return content


def _check_ids(
    path_prefix: Path,
    first: int,
    ids: npt.NDArray[np.integer],
    ends: npt.NDArray[np.int64],
    check: TokenCheck,
) -> None:
    if len(ids) and (int(ids.min()) < 0 or int(ids.max()) >= check.vocab_size):
        wide = ids.astype(np.int64)
        at = int(np.argmax((wide < 0) | (wide >= check.vocab_size)))
        number = first + int(np.searchsorted(ends, at, side="right")) - 1
        raise ValueError(
            f"{bin_path(path_prefix)}: document {number:,} holds the id {wide[at]:,}, but this "
            f"recipe's tokenizer has ids 0..{check.vocab_size - 1:,}. It was made with another "
            "one: correct tokenize.tokenizer."
        )
