"""Megatron's `.idx`: reading with checks, and writing without a Python loop.

Layout (megatron.core.datasets.indexed_dataset, 0.16.1), little-endian: magic `MMIDIDX\\0\\0`, u64
version 1, u8 dtype code, u64 S sequences, u64 D = documents + 1, then i32 lengths (S, tokens), i64
pointers (S, byte offsets into the .bin), i64 document indices (D: where each document's sequences
end). Standard library and numpy only, so that a training container can use it.

Shape letters: S sequences, D document boundaries.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mira_megatron.atomic_files import replacing

_HEADER = struct.Struct("<9sQBQQ")
_MAGIC = b"MMIDIDX\x00\x00"
_VERSION = 1
_DTYPES: dict[int, type[np.number]] = {
    1: np.uint8,
    2: np.int8,
    3: np.int16,
    4: np.int32,
    5: np.int64,
    6: np.float64,
    7: np.float32,
    8: np.uint16,
}
_CODES = {np.dtype(dtype): code for code, dtype in _DTYPES.items()}
# megatron-core's DType.optimal_dtype: below this, token ids are stored as uint16.
_UINT16_VOCABULARY = 65_500


@dataclass(frozen=True, kw_only=True, slots=True)
class SequenceIndex:
    """The content of one `.idx`, copied out of the file (Megatron closes its map under views)."""

    dtype: np.dtype[np.number]  # of the token ids in the .bin
    lengths_S: npt.NDArray[np.int32]  # tokens
    pointers_S: npt.NDArray[np.int64]  # byte offsets
    document_indices_D: npt.NDArray[np.int64]

    @property
    def num_documents(self) -> int:
        """Returns how many documents there are; one may have no sequence, or several."""
        return len(self.document_indices_D) - 1

    @property
    def num_tokens(self) -> int:
        """Returns the sum of all sequence lengths."""
        return int(self.lengths_S.sum(dtype=np.int64))

    def document_tokens(self) -> npt.NDArray[np.int64]:
        """Returns tokens per document, 0 for one without a sequence."""
        ends = np.concatenate([[0], np.cumsum(self.lengths_S, dtype=np.int64)])
        return np.diff(ends[self.document_indices_D])


def idx_path(path_prefix: Path) -> Path:
    """Returns `<path_prefix>.idx`; the prefix itself may contain dots."""
    return path_prefix.with_name(f"{path_prefix.name}.idx")


def bin_path(path_prefix: Path) -> Path:
    """Returns `<path_prefix>.bin`."""
    return path_prefix.with_name(f"{path_prefix.name}.bin")


def token_dtype(vocab_size: int) -> np.dtype[np.number]:
    """Returns the dtype Megatron's preprocessing chooses for a vocabulary of this size."""
    return np.dtype(np.uint16 if vocab_size < _UINT16_VOCABULARY else np.int32)


def one_sequence_per_document(
    lengths_S: npt.NDArray[np.integer], dtype: np.dtype[np.number]
) -> SequenceIndex:
    """Returns the index of documents that lie one after another from the start of a .bin."""
    ends = np.cumsum(lengths_S, dtype=np.int64) * dtype.itemsize
    return SequenceIndex(
        dtype=dtype,
        lengths_S=lengths_S.astype(np.int32),
        pointers_S=np.concatenate([[0], ends[:-1]]).astype(np.int64)[: len(lengths_S)],
        document_indices_D=np.arange(len(lengths_S) + 1, dtype=np.int64),
    )


def write_index(path: Path, index: SequenceIndex) -> None:
    """Writes an `.idx` atomically, byte-identical to Megatron's own writer."""
    header = _HEADER.pack(
        _MAGIC,
        _VERSION,
        _CODES[index.dtype],
        len(index.lengths_S),
        len(index.document_indices_D),
    )
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(header)
        file.write(index.lengths_S.astype("<i4").tobytes())
        file.write(index.pointers_S.astype("<i8").tobytes())
        file.write(index.document_indices_D.astype("<i8").tobytes())


def read_index(path_prefix: Path) -> SequenceIndex:
    """Returns the index of a dataset after checking it against itself and its `.bin`.

    Raises FileNotFoundError for a missing file and ValueError, saying what was expected, for a file
    that is no index, is cut short, or points outside the .bin.
    """
    path = idx_path(path_prefix)
    content = _read(path)
    if len(content) < _HEADER.size:
        raise ValueError(f"{path}: {len(content)} bytes are too few for a Megatron index")
    magic, version, code, num_sequences, num_boundaries = _HEADER.unpack_from(content)
    if magic != _MAGIC or version != _VERSION:
        raise ValueError(
            f"{path}: not a Megatron index (starts with {magic!r}, version {version}; "
            f"expected {_MAGIC!r}, version {_VERSION})"
        )
    if code not in _DTYPES:
        raise ValueError(f"{path}: unknown token dtype code {code}; known: {sorted(_DTYPES)}")
    expected = _HEADER.size + 12 * num_sequences + 8 * num_boundaries
    if len(content) < expected or num_boundaries < 1:
        raise ValueError(
            f"{path}: cut short: {len(content):,} bytes, but {num_sequences:,} sequences and "
            f"{num_boundaries:,} document boundaries need {expected:,}"
        )
    if len(content) > expected:
        raise ValueError(
            f"{path}: {len(content) - expected:,} bytes more than its header announces "
            "(a multimodal index? those are not supported)"
        )
    index = _unpack(content, _DTYPES[code], num_sequences, num_boundaries)
    _check(path_prefix, index)
    return index


def index_fingerprint(path_prefix: Path) -> str:
    """Returns blake2b-128 of the `.idx` bytes, 32 hex digits: what a keep mask belongs to."""
    return hashlib.blake2b(_read(idx_path(path_prefix)), digest_size=16).hexdigest()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path}: no such index; expected a .bin/.idx pair") from error


def _unpack(
    content: bytes, dtype: type[np.number], num_sequences: int, num_boundaries: int
) -> SequenceIndex:
    lengths_at = _HEADER.size
    pointers_at = lengths_at + 4 * num_sequences
    boundaries_at = pointers_at + 8 * num_sequences
    return SequenceIndex(
        dtype=np.dtype(dtype),
        lengths_S=np.frombuffer(content, "<i4", num_sequences, lengths_at),
        pointers_S=np.frombuffer(content, "<i8", num_sequences, pointers_at),
        document_indices_D=np.frombuffer(content, "<i8", num_boundaries, boundaries_at),
    )


def _check(path_prefix: Path, index: SequenceIndex) -> None:
    path = idx_path(path_prefix)
    boundaries = index.document_indices_D
    if (
        boundaries[0] != 0
        or boundaries[-1] != len(index.lengths_S)
        or (np.diff(boundaries) < 0).any()
    ):
        raise ValueError(
            f"{path}: document boundaries must rise from 0 to {len(index.lengths_S):,} sequences, "
            f"but run from {boundaries[0]:,} to {boundaries[-1]:,}"
        )
    if not len(index.lengths_S):
        return
    ends = index.pointers_S + index.lengths_S.astype(np.int64) * index.dtype.itemsize
    tokens = bin_path(path_prefix)
    if not tokens.is_file():
        raise FileNotFoundError(f"{tokens}: no such file; expected it beside {path}")
    size_bytes = tokens.stat().st_size
    if index.lengths_S.min() < 0 or index.pointers_S.min() < 0 or ends.max() > size_bytes:
        raise ValueError(
            f"{path}: points to byte {ends.max():,}, but {tokens} has {size_bytes:,} bytes. "
            "The two files do not belong together, or the .bin is cut short."
        )
