"""The `.records.parquet` side files of merged datasets, one after another.

Row i of the result describes document i of the merged dataset, as in every input. Row groups are
cut anew, so the bytes depend on the rows of the inputs alone. Memory: one row group.
"""

from __future__ import annotations

import filecmp
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mira_megatron.tokenization.index_file import records_path
from mira_megatron.tokenization.parquet_rows import (
    ROWS_PER_GROUP,
    RowWriter,
    rows_into,
    writing_rows,
)


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
    with writing_rows(path, _schema(records_path(prefixes[0]))) as rows:
        _add_all(rows, prefixes)


def has_records(path: Path, prefixes: Sequence[Path]) -> bool:
    """Returns whether the file at `path` is, byte for byte, what `write_records` would write."""
    again = path.with_name(f".{path.name}.tmp")
    try:
        with (
            again.open("wb") as file,
            rows_into(file, _schema(records_path(prefixes[0]))) as rows,
        ):
            _add_all(rows, prefixes)
        return filecmp.cmp(again, path, shallow=False)
    finally:
        again.unlink(missing_ok=True)


def _add_all(rows: RowWriter, prefixes: Sequence[Path]) -> None:
    schema = _schema(records_path(prefixes[0]))
    for prefix in prefixes:
        with pq.ParquetFile(records_path(prefix)) as parts:
            for batch in parts.iter_batches(ROWS_PER_GROUP):
                rows.add(pa.Table.from_batches([batch]).cast(schema))


def _schema(path: Path) -> pa.Schema:
    return pq.read_schema(path).remove_metadata()
