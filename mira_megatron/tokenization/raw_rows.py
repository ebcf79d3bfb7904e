"""Rows of raw files that become documents, in chunks of bounded size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

CHUNK_BYTES = 8 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class FileRange:
    """What one shard reads."""

    file: str
    start: int  # first byte of a .jsonl, first row group of a .parquet; 0 of a compressed file
    stop: int


@dataclass(frozen=True, kw_only=True, slots=True)
class BadRow:
    """A row that cannot become a document."""

    row: int  # 1-based, counted from the start of the range
    reason: str  # a short word to count by
    detail: str  # for a person; never the row's text


@dataclass(frozen=True, kw_only=True, slots=True)
class RawChunk:
    """Rows that follow each other in a file."""

    texts: pa.LargeStringArray  # checked: none is null, all are UTF-8
    ids: pa.StringArray | None  # of the texts, if a field holds them
    rows: Sequence[int]  # of the texts, as in BadRow
    bad: list[BadRow]
    num_rows: int  # good, bad, and empty lines


def row_id(value: object) -> str:
    """Returns an id as text; TypeError for what is neither a string nor a whole number."""
    if isinstance(value, str):
        return value
    if type(value) is int:
        return str(value)
    raise TypeError


def grouped(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yields the rows of small batches in ones of about CHUNK_BYTES; memory is that of one."""
    waiting: list[pa.RecordBatch] = []
    num_bytes = 0
    for batch in batches:
        if waiting and num_bytes + batch.nbytes > CHUNK_BYTES:
            yield pa.concat_batches(waiting)
            waiting, num_bytes = [], 0
        waiting.append(batch)
        num_bytes += batch.nbytes
    if waiting:
        yield pa.concat_batches(waiting)
