"""Parquet files written row group by row group, so that memory is that of one.

Groups are cut by their number of rows, however the rows come: equal rows are equal bytes.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from mira_megatron.atomic_files import replacing

ROWS_PER_GROUP = 1 << 16


@dataclass(slots=True)
class RowWriter:
    """A parquet file being written; rows are appended in order."""

    file: BinaryIO
    content: io.BytesIO  # what Arrow wrote and the file has not got yet
    parquet: pq.ParquetWriter
    waiting: list[pa.Table] = field(default_factory=list)
    num_waiting: int = 0

    def add(self, rows: pa.Table) -> None:
        """Appends rows; they reach the file with the last ones of their group."""
        self.waiting.append(rows)
        self.num_waiting += rows.num_rows
        if self.num_waiting < ROWS_PER_GROUP:
            return
        table = pa.concat_tables(self.waiting)
        while table.num_rows >= ROWS_PER_GROUP:
            self._write_group(table.slice(0, ROWS_PER_GROUP))
            table = table.slice(ROWS_PER_GROUP)
        self.waiting, self.num_waiting = [table], table.num_rows

    def end_group(self) -> None:
        """Writes what waits as a group, however few rows they are."""
        if self.num_waiting:
            self._write_group(pa.concat_tables(self.waiting))
        self.waiting, self.num_waiting = [], 0

    def end(self) -> None:
        """Writes what waits, and the file's footer."""
        self.end_group()
        self.parquet.close()
        self._drain()

    def _write_group(self, rows: pa.Table) -> None:
        # Where chunks end, so may pages: one chunk per column keeps bytes from depending on them.
        self.parquet.write_table(rows.combine_chunks(), row_group_size=ROWS_PER_GROUP)
        self._drain()

    def _drain(self) -> None:
        self.file.write(self.content.getvalue())
        self.content.seek(0)
        self.content.truncate()


@contextmanager
def writing_rows(path: Path, schema: pa.Schema) -> Iterator[RowWriter]:
    """Yields a writer whose zstd parquet file lies under its name when the block has ended well."""
    with (
        replacing(path) as temporary,
        temporary.open("wb") as file,
        rows_into(file, schema) as writer,
    ):
        yield writer


@contextmanager
def rows_into(
    file: BinaryIO, schema: pa.Schema, *, has_checksums: bool = False
) -> Iterator[RowWriter]:
    """Yields a writer of one zstd parquet file into an open file."""
    # Through memory: Arrow's own file writer aborts the process when the disk is full.
    content = io.BytesIO()
    with pq.ParquetWriter(
        content, schema, compression="zstd", write_page_checksum=has_checksums
    ) as parquet:
        writer = RowWriter(file, content, parquet)
        yield writer
        writer.end()
