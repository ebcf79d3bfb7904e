"""One range of a raw file into one shard of tokens, and its rows' numbers in the whole file."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from mira_megatron.atomic_files import write_json
from mira_megatron.records import DOCUMENT_SCHEMA
from mira_megatron.shards import with_columns
from mira_megatron.tokenization.raw_rows import FileRange
from mira_megatron.tokenization.raw_text import read_chunks
from mira_megatron.tokenization.record_shards import open_encoder
from mira_megatron.tokenization.text_columns import TextError, text_hashes, utf8_of
from mira_megatron.tokenization.token_shards import read_documents, writing_shard

_LISTED_BAD_ROWS = 1_000  # per shard; all are counted


@dataclass(frozen=True, kw_only=True, slots=True)
class RawTask:
    """A range of a file, and the shard that it becomes."""

    part: FileRange
    shard: Path
    tokenizer: Path
    tokenizer_digest: str
    eod_token: str
    backend: str
    text_field: str
    id_field: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class RawReport:
    """What a shard holds; rows are counted from its start."""

    num_rows: int
    num_documents: int
    num_text_bytes: int
    num_tokens: int
    num_control_texts: int
    num_bad: dict[str, int]
    bad: list[list[Any]]  # row, reason, detail of the first _LISTED_BAD_ROWS


@dataclass(frozen=True, kw_only=True, slots=True)
class PlacedShard:
    """A shard whose place in its file is known, since all before it are done."""

    task: RawTask
    report: RawReport
    rows_before: int  # in the same file

    def bad_rows(self) -> Iterator[tuple[str, str, str]]:
        """Yields origin (file:row), reason and detail of the bad rows that are listed."""
        for row, reason, detail in self.report.bad:
            yield f"{self.task.part.file}:{self.rows_before + row}", reason, detail


def write_raw_shard(task: RawTask) -> RawReport:
    """Returns what the shard holds, after encoding the range unless that was done.

    Raises ValueError, naming file and row, for a text that gigatoken encodes unlike Hugging Face.
    """
    path = task.shard.with_name(f"{task.shard.name}.json")
    if path.is_file():
        return RawReport(**orjson.loads(path.read_bytes()))
    encoder = open_encoder(task.tokenizer, task.tokenizer_digest, task.eod_token, task.backend)
    num_rows = num_text_bytes = 0
    bad: list[list[Any]] = []
    num_bad: Counter[str] = Counter()
    with writing_shard(task.shard) as shard:
        chunks = read_chunks(task.part, text_field=task.text_field, id_field=task.id_field)
        for chunk in chunks:
            try:
                encoded = encoder.encode(chunk.texts)
            except TextError as error:
                where = f"{task.part.file}: row {chunk.rows[error.text]:,} of the {_range(task)}"
                raise ValueError(f"{where}: {error.problem}") from error
            ids = chunk.ids if chunk.ids is not None else map(str, chunk.rows)
            shard.add(encoded, pa.array(ids, pa.string()), text_hashes(chunk.texts))
            num_rows += chunk.num_rows
            num_text_bytes += utf8_of(chunk.texts).nbytes
            num_bad.update(row.reason for row in chunk.bad)
            bad += [[row.row, row.reason, row.detail] for row in chunk.bad]
            del bad[_LISTED_BAD_ROWS:]
    report = RawReport(
        num_rows=num_rows,
        num_documents=shard.num_documents,
        num_text_bytes=num_text_bytes,
        num_tokens=shard.num_tokens,
        num_control_texts=shard.num_control_texts,
        num_bad=dict(num_bad),
        bad=bad,
    )
    write_json(path, dataclasses.asdict(report))
    return report


def placed(task: RawTask, report: RawReport, previous: PlacedShard | None) -> PlacedShard:
    """Returns the shard with its place, given the one before it."""
    rows_before = 0
    if previous is not None and previous.task.part.file == task.part.file:
        rows_before = previous.rows_before + previous.report.num_rows
    return PlacedShard(task=task, report=report, rows_before=rows_before)


def joined_documents(shards: Sequence[PlacedShard], *, has_ids: bool) -> pa.Table:
    """Returns the documents of all shards, in order, with their ids; none is held out."""
    documents = read_documents([shard.task.shard for shard in shards])
    columns = {"is_validation": pa.array(np.zeros(documents.num_rows, bool))}
    if not has_ids:
        columns["record_id"] = _file_and_row(shards, documents["record_id"])
    return with_columns(documents, columns, DOCUMENT_SCHEMA)


def _file_and_row(shards: Sequence[PlacedShard], rows: pa.ChunkedArray) -> pa.ChunkedArray:
    """Returns file:row for documents whose rows are counted from the start of their shards."""
    num_documents = [shard.report.num_documents for shard in shards]
    before = np.repeat([shard.rows_before for shard in shards], num_documents)
    in_file = pc.add(rows.cast(pa.int64()), pa.array(before, pa.int64())).cast(pa.string())
    files = pa.array([shard.task.part.file for shard in shards], pa.string())
    of_row = files.take(pa.array(np.repeat(np.arange(len(shards)), num_documents)))
    return pc.binary_join_element_wise(of_row, in_file, ":")


def _range(task: RawTask) -> str:
    unit = "row groups" if task.part.file.endswith(".parquet") else "bytes"
    return f"{unit} {task.part.start:,} to {task.part.stop:,}"
