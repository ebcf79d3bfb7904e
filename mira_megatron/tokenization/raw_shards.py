"""One range of a raw file into one shard of tokens, and its rows' numbers in the whole file.

Beside what token_shards.py says, a shard may have a <shard>.bad.jsonl: row, reason and detail of
every row that cannot become a document.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from mira_megatron.atomic_files import replacing
from mira_megatron.records import DOCUMENT_SCHEMA
from mira_megatron.tokenization.parquet_rows import writing_rows
from mira_megatron.tokenization.raw_rows import FileRange
from mira_megatron.tokenization.raw_text import read_chunks
from mira_megatron.tokenization.record_shards import open_encoder
from mira_megatron.tokenization.text_columns import TextError, text_hashes, utf8_of
from mira_megatron.tokenization.token_shards import (
    EncodedShard,
    beside,
    document_batches,
    writing_shard,
)

_REPEATED_LOOKED_AT = 100
_BAD_ROWS = "bad.jsonl"


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


@dataclass(frozen=True, kw_only=True, slots=True)
class PlacedShard:
    """A shard whose place in its file is known, since all before it are done."""

    task: RawTask
    report: RawReport
    rows_before: int  # in the same file

    def bad_rows(self) -> Iterator[tuple[str, str, str]]:
        """Yields origin (file:row), reason and detail of all bad rows."""
        if not self.report.num_bad:
            return
        with beside(self.task.shard, _BAD_ROWS).open("rb") as lines:
            for line in lines:
                row, reason, detail = orjson.loads(line)
                yield f"{self.task.part.file}:{self.rows_before + row}", reason, detail


def encode_raw_shard(task: RawTask) -> EncodedShard[RawReport]:
    """Returns the range, encoded.

    Raises ValueError, naming file and row, for a text that gigatoken encodes unlike Hugging Face.
    """
    encoder = open_encoder(task.tokenizer, task.tokenizer_digest, task.eod_token, task.backend)
    num_rows = num_text_bytes = 0
    num_bad: Counter[str] = Counter()
    with writing_shard(task.shard) as shard:
        chunks = read_chunks(task.part, text_field=task.text_field, id_field=task.id_field)
        for chunk in chunks:
            try:
                encoded = encoder.encode(chunk.texts)
            except TextError as error:
                where = f"{task.part.file}: row {chunk.rows[error.text]:,} of the {_range(task)}"
                raise ValueError(f"{where}: {error.problem}") from error
            ids = chunk.ids
            if ids is None:
                ids = pa.array(chunk.rows, pa.int64()).cast(pa.string())
            shard.add(encoded, ids, text_hashes(chunk.texts))
            num_rows += chunk.num_rows
            num_text_bytes += utf8_of(chunk.texts).nbytes
            num_bad.update(row.reason for row in chunk.bad)
            for row in chunk.bad:
                line = orjson.dumps([row.row, row.reason, row.detail]) + b"\n"
                shard.file(_BAD_ROWS).write(line)
        return shard.encoded(
            RawReport(
                num_rows=num_rows,
                num_documents=shard.num_documents,
                num_text_bytes=num_text_bytes,
                num_tokens=shard.num_tokens,
                num_control_texts=shard.num_control_texts,
                num_bad=dict(num_bad),
            )
        )


def placed(task: RawTask, report: RawReport, previous: PlacedShard | None) -> PlacedShard:
    """Returns the shard with its place, given the one before it."""
    rows_before = 0
    if previous is not None and previous.task.part.file == task.part.file:
        rows_before = previous.rows_before + previous.report.num_rows
    return PlacedShard(task=task, report=report, rows_before=rows_before)


def write_records(path: Path, shards: Sequence[PlacedShard], *, has_ids: bool) -> None:
    """Writes the documents of all shards, in order, with their ids; none is held out."""
    with writing_rows(path, DOCUMENT_SCHEMA) as rows:
        for shard in shards:
            for batch in document_batches(shard.task.shard):
                ids = batch["record_id"] if has_ids else _file_and_row(shard, batch["record_id"])
                columns = {
                    "record_id": ids,
                    "num_tokens": batch["num_tokens"],
                    "is_validation": pa.array(np.zeros(batch.num_rows, bool)),
                    "text_hash": batch["text_hash"],
                }
                rows.add(pa.Table.from_pydict(columns, schema=DOCUMENT_SCHEMA))


def write_bad_rows(path: Path, shards: Sequence[PlacedShard]) -> None:
    """Writes origin, reason and detail of all bad rows, in order, as JSON Lines."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        for shard in shards:
            for origin, reason, detail in shard.bad_rows():
                line = {"origin": origin, "reason": reason, "detail": detail}
                file.write(orjson.dumps(line) + b"\n")


def check_ids(shards: Sequence[PlacedShard]) -> None:
    """Raises ValueError, naming one, where documents have equal ids."""
    num_documents = sum(shard.report.num_documents for shard in shards)
    hashes_D = np.empty(num_documents, np.uint64)
    start = 0
    for _, _, hashes in _hashed_ids(shards):
        hashes_D[start : start + len(hashes)] = hashes
        start += len(hashes)
    hashes_D.sort()
    repeated = hashes_D[1:][hashes_D[1:] == hashes_D[:-1]]
    if not len(repeated):
        return
    # Of 64 bits, two may be equal by chance once among billions of ids: the ids themselves decide.
    looked_at = np.unique(repeated)[:_REPEATED_LOOKED_AT]
    first_file: dict[str, str] = {}
    for file, ids, hashes in _hashed_ids(shards):
        for record_id in ids.filter(pa.array(np.isin(hashes, looked_at))).to_pylist():
            if record_id in first_file:
                raise ValueError(
                    f"{file}: a row has the id {record_id!r}, and so has another one of "
                    f"{first_file[record_id]}. {len(repeated):,} of {num_documents:,} documents "
                    "repeat an id: name a field that tells them apart, or none (an id is then "
                    "the file and the row)."
                )
            first_file[record_id] = file


def _hashed_ids(
    shards: Sequence[PlacedShard],
) -> Iterator[tuple[str, pa.StringArray, npt.NDArray[np.uint64]]]:
    """Yields files, ids and 64 bits of each id's hash."""
    for shard in shards:
        for batch in document_batches(shard.task.shard):
            ids = batch["record_id"]
            hashes = text_hashes(ids.cast(pa.large_string()))
            yield shard.task.part.file, ids, np.frombuffer(hashes.buffers()[1], np.uint64)[::2]


def _file_and_row(shard: PlacedShard, rows: pa.StringArray) -> pa.StringArray:
    """Returns file:row for documents whose rows are counted from the start of their shard."""
    in_file = pc.add(rows.cast(pa.int64()), shard.rows_before).cast(pa.string())
    return pc.binary_join_element_wise(shard.task.part.file, in_file, ":")


def _range(task: RawTask) -> str:
    unit = "row groups" if task.part.file.endswith(".parquet") else "bytes"
    return f"{unit} {task.part.start:,} to {task.part.stop:,}"
