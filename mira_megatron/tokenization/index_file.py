"""Megatron's `.idx`: reading with checks, and writing without a Python loop.

Layout (megatron.core.datasets.indexed_dataset, 0.16.1), little-endian: magic `MMIDIDX\\0\\0`, u64
version 1, u8 dtype code, u64 S sequences, u64 D = documents + 1, then i32 lengths (S, tokens), i64
pointers (S, byte offsets into the .bin), i64 document indices (D: where each document's sequences
end). Standard library and numpy only, so that a training container can use it.

Memory: reading takes the file's own size, 20 bytes per document of one sequence, and a constant
(checks go through it in pieces, the fingerprint is made of the same bytes); writing, a constant.

Shape letters: S sequences, D document boundaries.
"""

from __future__ import annotations

import hashlib
import os
import re
import struct
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BufferedReader
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
    8: np.uint16,
}
_NO_TOKENS = {6: "float64", 7: "float32"}  # Megatron knows them, but a token id is a whole number
_CODES = {np.dtype(dtype): code for code, dtype in _DTYPES.items()}
# megatron-core's DType.optimal_dtype: below this, token ids are stored as uint16.
_UINT16_VOCABULARY = 65_500
_PIECE = 1 << 20  # sequences checked at a time: their numbers stay in a processor's cache
_OBJECT_STORAGE = re.compile(r"[a-z][a-z0-9+.-]+:/")  # a Path keeps one slash of two

Also = Callable[[bytes | memoryview], object]


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

    @property
    def num_bytes(self) -> int:
        """Returns the bytes of all sequences together."""
        return self.num_tokens * self.dtype.itemsize

    def sizes_bytes(self) -> npt.NDArray[np.int64]:
        """Returns the bytes of every sequence, shape (S,)."""
        return np.multiply(self.lengths_S, self.dtype.itemsize, dtype=np.int64)

    def document_tokens(self) -> npt.NDArray[np.int64]:
        """Returns tokens per document, 0 for one without a sequence."""
        ends = np.zeros(len(self.lengths_S) + 1, dtype=np.int64)
        np.cumsum(self.lengths_S, out=ends[1:])
        return np.diff(ends[self.document_indices_D])

    def has_one_sequence_each(self) -> bool:
        """Returns whether document d is sequence d, as our own and most writers have it."""
        return self.num_documents == len(self.lengths_S) and all(
            (late - early == 1).all() for early, late in _neighbours(self.document_indices_D)
        )

    def is_contiguous(self) -> bool:
        """Returns whether the sequences lie one after another from the .bin's first byte."""
        return _follow_each_other(self, self.dtype.itemsize)


def idx_path(path_prefix: Path) -> Path:
    """Returns `<path_prefix>.idx`; the prefix itself may contain dots."""
    return path_prefix.with_name(f"{path_prefix.name}.idx")


def bin_path(path_prefix: Path) -> Path:
    """Returns `<path_prefix>.bin`."""
    return path_prefix.with_name(f"{path_prefix.name}.bin")


def records_path(path_prefix: Path) -> Path:
    """Returns `<path_prefix>.records.parquet`: row i describes document i."""
    return path_prefix.with_name(f"{path_prefix.name}.records.parquet")


def token_dtype(vocab_size: int) -> np.dtype[np.number]:
    """Returns the dtype Megatron's preprocessing chooses for a vocabulary of this size."""
    return np.dtype(np.uint16 if vocab_size < _UINT16_VOCABULARY else np.int32)


def one_sequence_per_document(
    lengths_S: npt.NDArray[np.integer], dtype: np.dtype[np.number]
) -> SequenceIndex:
    """Returns the index of documents that lie one after another from the start of a .bin.

    Raises ValueError for a document of more tokens than Megatron's int32 lengths can hold.
    """
    longest, limit = int(lengths_S.max(initial=0)), int(np.iinfo(np.int32).max)
    if longest > limit:
        raise ValueError(
            f"a document of {longest:,} tokens: a sequence in Megatron's index has at most "
            f"{limit:,} (int32). Split the document."
        )
    return SequenceIndex(
        dtype=dtype,
        lengths_S=lengths_S.astype(np.int32, copy=False),
        pointers_S=contiguous_pointers(lengths_S, dtype),
        document_indices_D=np.arange(len(lengths_S) + 1, dtype=np.int64),
    )


def contiguous_pointers(
    lengths_S: npt.NDArray[np.integer], dtype: np.dtype[np.number]
) -> npt.NDArray[np.int64]:
    """Returns the byte offsets, shape (S,), of sequences that lie one after another."""
    pointers_S = np.zeros(len(lengths_S), dtype=np.int64)
    np.cumsum(lengths_S[:-1], out=pointers_S[1:])
    pointers_S *= dtype.itemsize
    return pointers_S


def write_index(path: Path, index: SequenceIndex) -> None:
    """Writes an `.idx` atomically, byte-identical to Megatron's own writer."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        for part in _parts(index):
            file.write(part)


def is_index_at(path: Path, index: SequenceIndex) -> bool:
    """Returns whether the file at `path` is, byte for byte, what `write_index` would write."""
    with path.open("rb") as file:
        for part in _parts(index):
            for at in range(0, len(part), _PIECE):
                piece = part[at : at + _PIECE]
                if file.read(len(piece)) != piece:
                    return False
        return not file.read(1)


def read_index(path_prefix: Path) -> SequenceIndex:
    """Returns the index of a dataset after checking it against itself and its `.bin`.

    Raises FileNotFoundError for a missing file and ValueError, saying what was expected, for a file
    that is no index, is cut short, or points outside the .bin.
    """
    index = _read(path_prefix, lambda part: None)
    _check(path_prefix, index)
    return index


def read_index_with_fingerprint(path_prefix: Path) -> tuple[SequenceIndex, str]:
    """Returns what `read_index` and `index_fingerprint` do, of the same bytes, read once."""
    digest = hashlib.blake2b(digest_size=16)
    # Hashing takes longer than reading and checking together, and lets them go on meanwhile.
    with ThreadPoolExecutor(1) as hashing:
        index = _read(path_prefix, lambda part: hashing.submit(digest.update, part))
        _check(path_prefix, index)
    return index, digest.hexdigest()


def index_fingerprint(path_prefix: Path) -> str:
    """Returns blake2b-128 of the `.idx` bytes, 32 hex digits: what a keep mask belongs to."""
    with _open(idx_path(path_prefix)) as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def check_covers_bin(index: SequenceIndex, size_bytes: int, path_prefix: Path) -> bool:
    """Returns whether the sequences lie one after another, so that sizes could be compared.

    Raises ValueError when they do and do not fill a `.bin` of `size_bytes` (the files of two
    datasets were swapped), or fill it with tokens of another size (a damaged dtype code). Not for
    views, which leave documents out.
    """
    if not index.is_contiguous():
        itemsizes = {np.dtype(dtype).itemsize for dtype in _DTYPES.values()}
        filling = [size for size in sorted(itemsizes) if index.num_tokens * size == size_bytes]
        _check_dtype(path_prefix, index, filling)
        return False
    if index.num_bytes != size_bytes:
        raise ValueError(
            f"{idx_path(path_prefix)}: its {index.num_documents:,} documents are "
            f"{index.num_bytes:,} bytes of {index.dtype}, but {bin_path(path_prefix)} has "
            f"{size_bytes:,} bytes. The two files do not belong together: restore the pair."
        )
    return True


def check_local(path: Path) -> None:
    """Raises ValueError for a path in object storage, saying what works there."""
    if _OBJECT_STORAGE.match(str(path)):
        raise ValueError(
            f"{path}: object storage. Index views are links, which it does not have, and mira "
            "reads and writes .bin/.idx through the file system. Work on a local or mounted copy "
            "and upload a physical copy (blend.handover=physical_copy, or `mira tokens "
            "materialise`), which Megatron can read from object storage."
        )


def _parts(index: SequenceIndex) -> Iterator[memoryview]:
    """Yields the bytes of an .idx in order; no copy is made of arrays stored as they are."""
    counts = len(index.lengths_S), len(index.document_indices_D)
    yield memoryview(_HEADER.pack(_MAGIC, _VERSION, _CODES[index.dtype], *counts))
    yield np.ascontiguousarray(index.lengths_S, "<i4").view(np.uint8).data
    yield np.ascontiguousarray(index.pointers_S, "<i8").view(np.uint8).data
    yield np.ascontiguousarray(index.document_indices_D, "<i8").view(np.uint8).data


def _open(path: Path) -> BufferedReader:
    check_local(path)
    try:
        return path.open("rb")
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path}: no such index; expected a .bin/.idx pair") from error


def _read(path_prefix: Path, also: Also) -> SequenceIndex:
    """Returns the arrays of an .idx; `also` gets the file's bytes in order, as they were read."""
    path = idx_path(path_prefix)
    with _open(path) as file:
        header = file.read(_HEADER.size)
        also(header)
        code, num_sequences, num_boundaries = _header_fields(
            path, header, os.fstat(file.fileno()).st_size
        )
        arrays = []
        for dtype, count in (
            (np.int32, num_sequences),
            (np.int64, num_sequences),
            (np.int64, num_boundaries),
        ):
            # Arrays of their own, not views into one block: there they would not be aligned.
            part = np.empty(count, dtype=np.dtype(dtype).newbyteorder("<"))
            if file.readinto(part.view(np.uint8).data) != part.nbytes:
                raise ValueError(f"{path}: became shorter while it was read")
            also(part.data)
            arrays.append(part)
    lengths_S, pointers_S, document_indices_D = arrays
    return SequenceIndex(
        dtype=np.dtype(_DTYPES[code]),
        lengths_S=lengths_S,
        pointers_S=pointers_S,
        document_indices_D=document_indices_D,
    )


def _header_fields(path: Path, header: bytes, size_bytes: int) -> tuple[int, int, int]:
    """Returns dtype code, sequences and boundaries once they are known to be those of the file."""
    if len(header) < _HEADER.size:
        raise ValueError(f"{path}: {len(header)} bytes are too few for a Megatron index")
    magic, version, code, num_sequences, num_boundaries = _HEADER.unpack(header)
    if magic != _MAGIC or version != _VERSION:
        raise ValueError(
            f"{path}: not a Megatron index (starts with {magic!r}, version {version}; "
            f"expected {_MAGIC!r}, version {_VERSION})"
        )
    if code in _NO_TOKENS:
        raise ValueError(
            f"{path}: token dtype code {code} ({_NO_TOKENS[code]}) is none of token ids; expected "
            "4 (int32), 8 (uint16) or another whole number's"
        )
    if code not in _DTYPES:
        raise ValueError(f"{path}: unknown token dtype code {code}; known: {sorted(_DTYPES)}")
    expected = _HEADER.size + 12 * num_sequences + 8 * num_boundaries
    if size_bytes < expected or num_boundaries < 1:
        raise ValueError(
            f"{path}: cut short: {size_bytes:,} bytes, but {num_sequences:,} sequences and "
            f"{num_boundaries:,} document boundaries need {expected:,}"
        )
    if size_bytes > expected:
        raise ValueError(
            f"{path}: {size_bytes - expected:,} bytes more than its header announces "
            "(a multimodal index? those are not supported)"
        )
    return code, num_sequences, num_boundaries


def _check(path_prefix: Path, index: SequenceIndex) -> None:
    path = idx_path(path_prefix)
    boundaries = index.document_indices_D
    if (
        boundaries[0] != 0
        or boundaries[-1] != len(index.lengths_S)
        or any((late < early).any() for early, late in _neighbours(boundaries))
    ):
        raise ValueError(
            f"{path}: document boundaries must rise from 0 to {len(index.lengths_S):,} sequences, "
            f"but run from {boundaries[0]:,} to {boundaries[-1]:,}"
        )
    if len(index.lengths_S):
        _check_inside_bin(path_prefix, index)
        # Larger distances may be those of a view that leaves documents out.
        _check_dtype(path_prefix, index, range(1, index.dtype.itemsize))


def _check_inside_bin(path_prefix: Path, index: SequenceIndex) -> None:
    tokens = bin_path(path_prefix)
    if not tokens.is_file():
        linked = f" (a link to {tokens.readlink()})" if tokens.is_symlink() else ""
        raise FileNotFoundError(
            f"{tokens}{linked}: no such file; expected it beside {idx_path(path_prefix)}"
        )
    size_bytes = tokens.stat().st_size
    lowest, last_byte = 0, 0
    for at in range(0, len(index.lengths_S), _PIECE):
        pointers = index.pointers_S[at : at + _PIECE]
        sizes = np.multiply(index.lengths_S[at : at + _PIECE], index.dtype.itemsize, dtype=np.int64)
        lowest = min(lowest, int(pointers.min()), int(sizes.min()))
        # A damaged pointer may be so large that its sum with a size is not.
        last_byte = max(last_byte, int(pointers.max()), int((pointers + sizes).max()))
    if lowest < 0 or last_byte > size_bytes:
        raise ValueError(
            f"{idx_path(path_prefix)}: points to byte {last_byte if lowest >= 0 else lowest:,}, "
            f"but {tokens} has {size_bytes:,} bytes. "
            "The two files do not belong together, or the .bin is cut short."
        )


def _check_dtype(path_prefix: Path, index: SequenceIndex, itemsizes: Sequence[int]) -> None:
    """Refuses sequences whose distances say that a token has another of these sizes in bytes."""
    if len(index.lengths_S) < 2 or index.is_contiguous():
        return
    for itemsize in itemsizes:
        if _follow_each_other(index, itemsize):
            raise ValueError(
                f"{idx_path(path_prefix)}: its sequences lie {itemsize} bytes per token apart, but "
                f"dtype code {_CODES[index.dtype]} says {index.dtype}, {index.dtype.itemsize} "
                f"bytes. Expected a code of {itemsize} bytes: the header is damaged."
            )


def _follow_each_other(index: SequenceIndex, itemsize: int) -> bool:
    """Returns whether the sequences lie one after another from byte 0, at this size of a token."""
    if len(index.lengths_S) and index.pointers_S[0] != 0:
        return False
    for at, (pointers, following) in enumerate(_neighbours(index.pointers_S)):
        lengths = index.lengths_S[at * _PIECE : at * _PIECE + len(pointers)]
        if (following - pointers != np.multiply(lengths, itemsize, dtype=np.int64)).any():
            return False
    return True


def _neighbours(
    values: npt.NDArray[np.int64],
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Yields all pairs of neighbouring values, as two arrays at a time."""
    for at in range(0, len(values) - 1, _PIECE):
        piece = values[at : at + _PIECE + 1]
        yield piece[:-1], piece[1:]
