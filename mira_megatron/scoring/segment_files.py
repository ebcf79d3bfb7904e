"""Segments of answers: their names and columns, and how one is made of a journal.

A segment appears whole, under a name that says which journal it was, then the journal is removed.
Where both lie there, a process was killed in between, and the journal is removed without being
read: its answers count once. A journal of any size is taken in with memory for one row group. All
of it is done under the lock of the folder of answers.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import orjson
import pyarrow as pa

from mira_megatron.atomic_files import replacing
from mira_megatron.file_lock import waited_lock
from mira_megatron.scoring.key_files import last_number
from mira_megatron.scoring.plain_answers import plain_answers
from mira_megatron.scoring.stored_answer import KEY_BYTES, Charges, read_answers
from mira_megatron.tokenization.parquet_rows import rows_into

CHARGED = b"charged"  # in the file's metadata: JSON, tokens by model
JSON_FIELDS = ("odds", "first_top")
COUNTS = ("prompt_tokens", "output_tokens")
SCHEMA = pa.schema(
    [
        pa.field("key", pa.binary(KEY_BYTES), nullable=False),
        pa.field("model", pa.string(), nullable=False),
        pa.field("charged_prompt_tokens", pa.int64(), nullable=False),
        pa.field("charged_output_tokens", pa.int64(), nullable=False),
        ("text", pa.large_string()),
        ("reasoning", pa.large_string()),
        ("finish_reason", pa.string()),
        ("num_prompt_tokens", pa.int64()),
        ("num_output_tokens", pa.int64()),
        ("failure", pa.string()),
        ("failure_detail", pa.string()),
        ("odds", pa.large_string()),
        ("first_top", pa.large_string()),
    ]
)
# What is read to find one answer: small, for those of a shard lie together anyway.
_ROWS_PER_GROUP = 512
_BYTES_PER_GROUP = 4 << 20


def segments_folder(folder: Path) -> Path:
    """Returns where the segments of a folder of answers lie."""
    return folder / "segments"


def segments_lock(folder: Path) -> AbstractContextManager[None]:
    """Holds the lock under which segments and key files of a folder of answers change."""
    return waited_lock(folder / ".segments.lock")


def segment_files(folder: Path) -> list[Path]:
    """Returns all segments of a folder of answers, by number."""
    return sorted(segments_folder(folder).glob("[0-9]*-*.parquet"))


def segment_number(segment: Path) -> int:
    """Returns the number of a segment, from 1."""
    return int(segment.name.partition("-")[0])


def journal_name(segment: Path) -> str:
    """Returns the name of the journal that a segment was made of, without its suffix."""
    return segment.stem.partition("-")[2]


def make_segment(journal: Path, file: BinaryIO, *, is_own: bool = False) -> None:
    """Makes a segment of a journal that is read from its beginning, and removes the journal.

    `is_own` says that this process has written it: it is read faster, and less is looked for.

    Raises ValueError with file and line for damage elsewhere than at its end, OSError (one of
    atomic_files.NO_SPACE) with the way out when the disk is full; the journal is kept then.
    """
    folder = journal.parent
    segments = segment_files(folder)
    if all(journal_name(segment) != journal.stem for segment in segments):
        within = segments_folder(folder)
        number = 1 + max([last_number(within), *map(segment_number, segments)])
        _write_segment(within / f"{number:08d}-{journal.stem}.parquet", journal, file, is_own)
        # The name must be on the disk before the journal's is gone.
        _sync_folder(within)
        _sync_folder(folder)
    journal.unlink()


def make_segment_of_left(journal: Path) -> None:
    """Makes a segment of a journal as `make_segment` does, unless a process still writes it."""
    # To lock a file for oneself, NFS wants it opened for writing.
    with suppress(FileNotFoundError), journal.open("rb+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        # One without a byte may be somebody's who has not locked it yet.
        if os.fstat(file.fileno()).st_size:
            make_segment(journal, file)


def _write_segment(segment: Path, journal: Path, file: BinaryIO, is_own: bool) -> None:
    charges = Charges()
    with (
        replacing(segment) as temporary,
        temporary.open("wb") as written,
        rows_into(written, SCHEMA, has_checksums=True) as writer,
    ):
        for group in _groups(journal, file, charges, is_own):
            writer.add(group)
            writer.end_group()
        by_model = {model: asdict(charged) for model, charged in charges.by_model.items()}
        writer.parquet.add_key_value_metadata({CHARGED: orjson.dumps(by_model)})


def _groups(journal: Path, file: BinaryIO, charges: Charges, is_own: bool) -> Iterator[pa.Table]:
    """Yields the answers of a journal in the same groups, whichever way they are read."""
    lines: list[bytes] = []
    num_read = 0
    while is_own and (lines := _lines_of_group(file)):
        group = plain_answers(lines, charges, SCHEMA)
        if group is None:
            break
        yield group
        num_read += len(lines)
    rows: list[dict[str, Any]] = []
    num_bytes = 0
    answers = read_answers(journal, chain(lines, file), charges, first=num_read + 1)
    for content, num_line_bytes in answers:
        rows.append(content)
        num_bytes += num_line_bytes
        if len(rows) == _ROWS_PER_GROUP or num_bytes >= _BYTES_PER_GROUP:
            yield _group(rows)
            rows, num_bytes = [], 0
    if rows:
        yield _group(rows)


def _lines_of_group(file: BinaryIO) -> list[bytes]:
    lines = []
    num_bytes = 0
    for line in file:
        lines.append(line)
        num_bytes += len(line)
        if len(lines) == _ROWS_PER_GROUP or num_bytes >= _BYTES_PER_GROUP:
            break
    return lines


def _group(rows: Sequence[dict[str, Any]]) -> pa.Table:
    columns = {name: [row.get(name) for row in rows] for name in SCHEMA.names}
    columns["key"] = [bytes.fromhex(row["key"]) for row in rows]
    for count in COUNTS:
        columns[f"charged_{count}"] = [row["charged"].get(f"num_{count}", 0) for row in rows]
    for name in JSON_FIELDS:
        columns[name] = [
            None if value is None else orjson.dumps(value).decode() for value in columns[name]
        ]
    arrays = [pa.array(columns[field.name], field.type) for field in SCHEMA]
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
