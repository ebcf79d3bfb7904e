"""Shards of a token dataset: written by many workers, joined in order by many writers.

    <shard>.bin                 token ids
    <shard>.documents.parquet   record_id, num_tokens, text_hash: row i describes document i
    <shard>.json                the caller's report, written last: with it, the shard is finished

Every shard's place in the joined .bin follows from the tokens of those before it, so that the
copies need not wait for each other.

Memory: one row group of what describes documents while a shard is written; `read_documents` holds
those of all shards, `read_num_tokens` eight bytes of each.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from mira_megatron.atomic_files import replacing
from mira_megatron.tokenization.copying import copy_runs, runs_of
from mira_megatron.tokenization.index_file import (
    bin_path,
    idx_path,
    one_sequence_per_document,
    write_index,
)
from mira_megatron.tokenization.parquet_rows import ROWS_PER_GROUP, RowWriter, writing_rows
from mira_megatron.tokenization.tokenizer import EncodedTexts

SHARD_SCHEMA = pa.schema(
    [
        pa.field("record_id", pa.string(), nullable=False),
        pa.field("num_tokens", pa.int64(), nullable=False),
        pa.field("text_hash", pa.binary(16), nullable=False),
    ]
)
# Megatron's index has 32 bits for the length of a sequence.
_MAX_DOCUMENT_TOKENS = 2**31 - 1


@dataclass(slots=True)
class ShardWriter:
    """A shard being written; documents are appended in order."""

    file: BinaryIO
    documents: RowWriter
    num_documents: int = 0
    num_tokens: int = 0
    num_control_texts: int = 0

    def add(
        self, encoded: EncodedTexts, record_ids: pa.Array, text_hashes: pa.FixedSizeBinaryArray
    ) -> None:
        """Appends documents: their tokens to one file, what describes them to another.

        Raises ValueError, naming the record, for a document longer than Megatron's index can say.
        """
        tokens = encoded.num_tokens_D
        if len(tokens) and tokens.max() > _MAX_DOCUMENT_TOKENS:
            document = int(tokens.argmax())
            raise ValueError(
                f"record {record_ids[document]}: {tokens[document]:,} tokens, but Megatron's index "
                f"has room for {_MAX_DOCUMENT_TOKENS:,} in one document. Cut the record."
            )
        self.file.write(encoded.ids_T.data)
        self.documents.add(
            pa.Table.from_arrays([record_ids, pa.array(tokens), text_hashes], schema=SHARD_SCHEMA)
        )
        self.num_documents += len(tokens)
        self.num_tokens += len(encoded.ids_T)
        self.num_control_texts += encoded.num_control_texts


@contextmanager
def writing_shard(shard: Path) -> Iterator[ShardWriter]:
    """Yields a writer whose files lie under their names when the block has ended well."""
    with (
        replacing(bin_path(shard)) as path,
        path.open("wb") as file,
        writing_rows(_documents_path(shard), SHARD_SCHEMA) as documents,
    ):
        yield ShardWriter(file, documents)


def read_documents(shards: Sequence[Path]) -> pa.Table:
    """Returns what describes the documents of all shards, in order, as one chunk per column."""
    tables = [pq.read_table(_documents_path(shard)) for shard in shards]
    return pa.concat_tables([SHARD_SCHEMA.empty_table(), *tables]).combine_chunks()


def document_batches(shard: Path) -> Iterator[pa.RecordBatch]:
    """Yields what describes a shard's documents, ROWS_PER_GROUP at a time."""
    with pq.ParquetFile(_documents_path(shard)) as file:
        yield from file.iter_batches(ROWS_PER_GROUP, use_threads=False)


def read_num_tokens(shards: Sequence[Path]) -> npt.NDArray[np.int64]:
    """Returns the tokens of every document of all shards, in order, shape (D,)."""
    num_tokens_D = np.empty(sum(map(_num_documents, shards)), np.int64)
    start = 0
    for shard in shards:
        column = pq.read_table(_documents_path(shard), columns=["num_tokens"])["num_tokens"]
        num_tokens_D[start : start + len(column)] = column.to_numpy()
        start += len(column)
    return num_tokens_D


def join_shards(
    shards: Sequence[Path],
    path_prefix: Path,
    *,
    num_tokens_D: npt.NDArray[np.int64],
    dtype: np.dtype[np.number],
    workers: int,
) -> None:
    """Writes the shards as one `.bin/.idx`, `workers` of them at a time, the `.idx` last.

    Raises ValueError, naming the shard, where its size is not that of its documents.
    """
    sizes = _checked_sizes(shards, num_tokens_D, dtype.itemsize)
    with replacing(bin_path(path_prefix)) as path:
        if not (len(shards) == 1 and _is_linked(bin_path(shards[0]), path)):
            _copy_all(shards, sizes, path, workers)
    write_index(idx_path(path_prefix), one_sequence_per_document(num_tokens_D, dtype))


def _checked_sizes(
    shards: Sequence[Path], num_tokens_D: npt.NDArray[np.int64], itemsize: int
) -> list[int]:
    """Returns the bytes of every shard's `.bin`."""
    sizes: list[int] = []
    start = 0
    for shard in shards:
        stop = start + _num_documents(shard)
        sizes.append(int(num_tokens_D[start:stop].sum()) * itemsize)
        start = stop
        path = bin_path(shard)
        found = f"{path.stat().st_size:,} bytes" if path.is_file() else "missing"
        if found != f"{sizes[-1]:,} bytes":
            raise ValueError(
                f"{path}: {found}, but its documents need {sizes[-1]:,} bytes. This shard was "
                f"changed: delete {shard}.json and run again to have it written anew."
            )
    return sizes


def _num_documents(shard: Path) -> int:
    num_rows: int = pq.read_metadata(_documents_path(shard)).num_rows
    return num_rows


def _is_linked(shard: Path, path: Path) -> bool:
    """Gives the only shard a second name; False where the file system has no hard links."""
    path.unlink(missing_ok=True)
    try:
        os.link(shard, path)
    except OSError:
        return False
    return True


def _copy_all(shards: Sequence[Path], sizes: Sequence[int], path: Path, workers: int) -> None:
    path.touch()
    for shard, size, start in zip(shards, sizes, accumulate(sizes, initial=0), strict=False):
        whole = runs_of(np.zeros(1, np.int64), np.array([size], np.int64))
        copy_runs(bin_path(shard), whole, path, at=start, workers=max(1, workers))


def _documents_path(shard: Path) -> Path:
    return shard.with_name(f"{shard.name}.documents.parquet")
