"""Rows of a benchmark's data file, JSON lines or Parquet, and one of them again without the rest.

Some benchmarks carry megabytes of tests per task: a reader keeps what it needs of each row and
where the row lies, and comes back for the tests when they are run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

_ROWS_AT_ONCE = 16  # of a Parquet file: a row may be megabytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a row lies: the byte that its line begins at, or its number in a Parquet file."""

    path: Path
    position: int
    number: int  # for messages, from 1

    def __str__(self) -> str:
        return f"{self.path}:{self.number}"


def read_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[Place, dict[str, Any]]]:
    """Yields each row with its place; columns that the file does not have are left out.

    Raises ValueError with file and line for what is no row.
    """
    if path.suffix == ".parquet":
        with _parquet(path) as file:
            rows = _parquet_rows(file, range(file.num_row_groups), columns)
            for position, row in enumerate(rows):
                yield Place(path=path, position=position, number=position + 1), row
        return
    with path.open("rb") as lines:
        position = 0
        for number, line in enumerate(lines, start=1):
            place = Place(path=path, position=position, number=number)
            position += len(line)
            if line.strip():
                yield place, _row_of_line(line, place, columns)


def row_at(place: Place, columns: Sequence[str]) -> dict[str, Any]:
    """Returns the row of a place. Raises ValueError where it is gone."""
    if place.path.suffix == ".parquet":
        with _parquet(place.path) as file:
            first = 0
            for group in range(file.num_row_groups):
                num_rows = file.metadata.row_group(group).num_rows
                if place.position < first + num_rows:
                    rows = _parquet_rows(file, [group], columns)
                    return next(row for at, row in enumerate(rows, first) if at == place.position)
                first += num_rows
        raise ValueError(f"{place}: the file has {first:,} rows; it has changed since it was read")
    with place.path.open("rb") as lines:
        lines.seek(place.position)
        return _row_of_line(lines.readline(), place, columns)


def text_fields(fields: Mapping[str, Any], names: Sequence[str], where: object) -> None:
    """Raises ValueError naming the first field that is no text."""
    for name in names:
        if not isinstance(fields.get(name), str):
            raise ValueError(
                f"{where}: field {name!r} is {str(fields.get(name))[:40]!r}; expected text in each "
                f"of {', '.join(names)}"
            )


def _parquet(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path}: no Parquet file ({error})") from error


def _parquet_rows(
    file: pq.ParquetFile, groups: Sequence[int], columns: Sequence[str]
) -> Iterator[dict[str, Any]]:
    names = [name for name in columns if name in file.schema_arrow.names]
    for batch in file.iter_batches(_ROWS_AT_ONCE, row_groups=list(groups), columns=names):
        for row in batch.to_pylist():
            yield {
                name: value.isoformat() if isinstance(value, date) else value
                for name, value in row.items()
            }


def _row_of_line(line: bytes, place: Place, columns: Sequence[str]) -> dict[str, Any]:
    try:
        fields = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{place}: not JSON ({error})") from error
    if not isinstance(fields, dict):
        raise ValueError(f"{place}: {type(fields).__name__}, expected an object")
    return {name: fields[name] for name in columns if name in fields}
