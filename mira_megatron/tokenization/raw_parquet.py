"""Parquet files as chunks of texts; row groups are what they can be cut into."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mira_megatron.tokenization.raw_rows import BadRow, FileRange, RawChunk, grouped
from mira_megatron.tokenization.text_columns import TextError, check_texts

_BUFFER_BYTES = 1 << 20
_BATCH_ROWS = 64
_TEXT_TYPES = (pa.string(), pa.large_string(), pa.string_view())


def row_group_ranges(path: Path, shard_bytes: int) -> Iterator[FileRange]:
    """Yields ranges of row groups, each of at least `shard_bytes` before compression."""
    try:
        metadata = pq.read_metadata(path)
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"{path}: unreadable Parquet: {error}. Copy it again.") from error
    start, size = 0, 0
    for group in range(metadata.num_row_groups):
        size += metadata.row_group(group).total_byte_size
        if size >= shard_bytes or group == metadata.num_row_groups - 1:
            yield FileRange(file=str(path), start=start, stop=group + 1)
            start, size = group + 1, 0


def parquet_chunks(part: FileRange, *, text_field: str, id_field: str | None) -> Iterator[RawChunk]:
    """Yields the rows of a range of row groups.

    Raises ValueError naming the file when it is damaged, or has no such column of strings.
    """
    path = Path(part.file)
    columns = [text_field] if id_field is None else [text_field, id_field]
    try:
        # With a buffer size and no prefetch, a row group is read page by page, not as a whole.
        with pq.ParquetFile(path, buffer_size=_BUFFER_BYTES, pre_buffer=False) as file:
            absent = [name for name in columns if name not in file.schema_arrow.names]
            if absent:
                raise ValueError(
                    f"{path}: no column {', '.join(absent)}; it has "
                    f"{', '.join(file.schema_arrow.names)}"
                )
            batches = file.iter_batches(
                _BATCH_ROWS,
                row_groups=range(part.start, part.stop),
                columns=columns,
                use_threads=False,
            )
            row = 1
            for batch in grouped(_as_text(path, batch, text_field) for batch in batches):
                yield _checked(batch, row, text_field, id_field)
                row += batch.num_rows
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"{path}: unreadable Parquet: {error}. Copy it again.") from error


def _as_text(path: Path, batch: pa.RecordBatch, text_field: str) -> pa.RecordBatch:
    position = batch.schema.get_field_index(text_field)
    column = batch.column(position)
    values = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if values not in _TEXT_TYPES:
        raise ValueError(f"{path}: column {text_field!r} is {column.type}, expected string")
    return batch.set_column(position, text_field, column.cast(pa.large_string()))


def _checked(
    batch: pa.RecordBatch, first_row: int, text_field: str, id_field: str | None
) -> RawChunk:
    texts = batch.column(batch.schema.get_field_index(text_field))
    bad: dict[int, BadRow] = {}
    try:
        check_texts(texts)
    except TextError:
        for number in range(len(texts)):
            try:
                check_texts(texts.slice(number, 1))
            except TextError as error:
                reason = "invalid_utf8" if texts[number].is_valid else "no_text"
                bad[number] = BadRow(row=first_row + number, reason=reason, detail=error.problem)
    ids = None
    if id_field is not None:
        ids = batch.column(batch.schema.get_field_index(id_field)).to_pylist()
        for number, value in enumerate(ids):
            if type(value) not in (str, int) and number not in bad:
                detail = f"expected a string or whole number in {id_field!r}"
                bad[number] = BadRow(row=first_row + number, reason="no_id", detail=detail)
    good = [number for number in range(len(texts)) if number not in bad]
    return RawChunk(
        texts=texts.take(pa.array(good, pa.int64())) if bad else texts,
        ids=None if ids is None else pa.array([str(ids[number]) for number in good], pa.string()),
        rows=[first_row + number for number in good],
        bad=list(bad.values()),
        num_rows=len(texts),
    )
