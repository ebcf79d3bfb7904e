"""The `.records.parquet` side files of merged datasets, one after another.

Row i of the result describes document i of the merged dataset, as in every input. Row groups are
cut anew, so the bytes depend on the rows of the inputs alone. Memory: one row group.
"""

from __future__ import annotations

import filecmp
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from mira_megatron.atomic_files import replacing

_ROWS_PER_GROUP = 1 << 16


def records_path(path_prefix: Path) -> Path:
    """Returns `<path_prefix>.records.parquet`."""
    return path_prefix.with_name(f"{path_prefix.name}.records.parquet")


def check_records(prefixes: Sequence[Path], num_documents: Sequence[int]) -> None:
    """Raises ValueError unless every side file has a row per document, and all the same columns."""
    first = _schema(records_path(prefixes[0]))
    for prefix, expected in zip(prefixes, num_documents, strict=True):
        path = records_path(prefix)
        num_rows = pq.read_metadata(path).num_rows
        if num_rows != expected:
            raise ValueError(
                f"{path}: {num_rows:,} rows, but {prefix}.idx has {expected:,} documents. Expected "
                "one row per document: restore the pair, or move the side file away."
            )
        if _schema(path) != first:
            raise ValueError(
                f"{path}: columns {_schema(path).names}, but {records_path(prefixes[0])} has "
                f"{first.names} (types and nullability included). Make them alike, or move the "
                "side files away."
            )


def write_records(path: Path, prefixes: Sequence[Path]) -> None:
    """Writes the rows of all side files, in order, as one zstd parquet file."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        _write(file, prefixes)


def has_records(path: Path, prefixes: Sequence[Path]) -> bool:
    """Returns whether the file at `path` is, byte for byte, what `write_records` would write."""
    again = path.with_name(f".{path.name}.tmp")
    try:
        with again.open("wb") as file:
            _write(file, prefixes)
        return filecmp.cmp(again, path, shallow=False)
    finally:
        again.unlink(missing_ok=True)


class _Drained(io.RawIOBase):
    """Keeps what Arrow writes until it is taken.

    Arrow's writer meets no error that way: it ends the process when a disk is full.
    """

    def __init__(self) -> None:
        self._content = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, content: object) -> int:
        view = memoryview(content).cast("B")  # type: ignore[arg-type]  # Arrow gives buffers
        self._content += view
        return len(view)

    def take_into(self, file: BinaryIO) -> None:
        file.write(self._content)
        self._content = bytearray()


def _write(file: BinaryIO, prefixes: Sequence[Path]) -> None:
    drained = _Drained()
    schema = _schema(records_path(prefixes[0]))
    with pq.ParquetWriter(drained, schema, compression="zstd") as writer:
        for rows in _row_groups(prefixes, schema):
            writer.write_table(rows, row_group_size=_ROWS_PER_GROUP)
            drained.take_into(file)
    drained.take_into(file)


def _row_groups(prefixes: Sequence[Path], schema: pa.Schema) -> Iterator[pa.Table]:
    """Yields all rows in tables of _ROWS_PER_GROUP, the last one shorter."""
    waiting: list[pa.RecordBatch] = []
    for prefix in prefixes:
        with pq.ParquetFile(records_path(prefix)) as parts:
            for batch in parts.iter_batches(_ROWS_PER_GROUP):
                waiting.append(batch)
                table = pa.Table.from_batches(waiting).cast(schema)
                while table.num_rows >= _ROWS_PER_GROUP:
                    yield table.slice(0, _ROWS_PER_GROUP)
                    table = table.slice(_ROWS_PER_GROUP)
                waiting = table.to_batches()
    if waiting:
        yield pa.Table.from_batches(waiting).cast(schema)


def _schema(path: Path) -> pa.Schema:
    return pq.read_schema(path).remove_metadata()
