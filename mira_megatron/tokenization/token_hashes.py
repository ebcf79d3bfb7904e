"""One pass over a `.bin`: a hash per document, and whether its tokens are those of a tokenizer.

Holds one block of tokens in memory, or the longest document where that is longer.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
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
    for first, documents in _blocks(path_prefix, index):
        for number, tokens in enumerate(documents, first):
            if len(tokens):
                _check_ids(path_prefix, number, tokens, check)
                has_eod = tokens[-1] == check.eod_id
                num_without_eod += not has_eod
                tokens = tokens[: len(tokens) - has_eod]
            hashes += xxhash.xxh3_128_digest(tokens.data)
    return _fixed_binary(bytes(hashes)), num_without_eod


def hash_ids(record_ids: pa.Array) -> pa.Array:
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
) -> Iterator[tuple[int, list[npt.NDArray[np.int32]]]]:
    """Yields the number of a block's first document, and the block's documents as int32 ids."""
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
            tokens = _read_sequences(file.fileno(), index, sequences)
            at = document_ends[first : last + 1] - document_ends[first]
            yield (
                first,
                [tokens[a:b] for a, b in zip(at[:-1].tolist(), at[1:].tolist(), strict=True)],
            )
            first = last


def _read_sequences(file: int, index: SequenceIndex, sequences: range) -> npt.NDArray[np.int32]:
    """Returns the ids of neighbouring sequences, one after another; a run of bytes is one read."""
    own = slice(sequences.start, sequences.stop)
    starts = index.pointers_S[own]
    ends = starts + index.lengths_S[own].astype(np.int64) * index.dtype.itemsize
    if not len(starts):
        return np.zeros(0, dtype=np.int32)
    is_run_start = np.append(True, starts[1:] != ends[:-1])
    run_starts, run_ends = starts[is_run_start], ends[np.append(is_run_start[1:], True)]
    pieces = [
        np.frombuffer(_pread(file, start, end - start), index.dtype.newbyteorder("<"))
        for start, end in zip(run_starts.tolist(), run_ends.tolist(), strict=True)
    ]
    return np.ascontiguousarray(np.concatenate(pieces), dtype="<i4")


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
    path_prefix: Path, number: int, tokens: npt.NDArray[np.int32], check: TokenCheck
) -> None:
    low, high = int(tokens.min()), int(tokens.max())
    if low < 0 or high >= check.vocab_size:
        wrong = low if low < 0 else high
        raise ValueError(
            f"{bin_path(path_prefix)}: document {number:,} holds the id {wrong:,}, but this "
            f"recipe's tokenizer has ids 0..{check.vocab_size - 1:,}. It was made with another "
            "one: correct tokenize.tokenizer."
        )
