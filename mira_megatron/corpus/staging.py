"""Raw rows to staged records: what one worker does with one shard of files.

A staged row is a record before it has an id. The shard's report is written last, so a shard that
has one is whole and is not read again after an interruption.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import orjson
import pyarrow as pa
import xxhash

from mira_megatron.atomic_files import replacing, write_json
from mira_megatron.corpus.degraded_copies import degraded_copies
from mira_megatron.corpus.readers import BadRow, Row, read_rows
from mira_megatron.corpus.sources import SourceConfig, SourceFile
from mira_megatron.records import RECORD_SCHEMA
from mira_megatron.shards import part_name, write_parquet

DROPPED = "dropped.jsonl"
# A staged or final part is cut at records_per_part rows or at this many bytes of text, payload and
# meta; with the copies that building a table takes, a worker then stays below 400 MB.
PART_BYTES = 16 << 20

_STAGED_FIELDS = ("content_hash", "family", "text", "payload", "meta", "control_spans")
STAGED_SCHEMA = pa.schema(
    [
        *(RECORD_SCHEMA.field(name) for name in (*_STAGED_FIELDS, "num_chars", "origin")),
        pa.field("is_copy", pa.bool_(), nullable=False),  # of the nearest row above that is none
    ]
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardTask:
    """One shard of files to be staged."""

    source_config: SourceConfig
    files: tuple[SourceFile, ...]
    records_per_part: int
    staging: Path
    index: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardReport:
    """What came of one shard's rows."""

    num_rows: int
    dropped: dict[str, int]
    num_malformed: int
    parts: tuple[str, ...]
    num_copies: int = 0  # degraded ones, those that were dropped included


def stage_shard(task: ShardTask) -> ShardReport:
    """Reads one shard of files into staged parts and reports what came of its rows."""
    report_path = task.staging / f"shard-{task.index:05d}.json"
    if report_path.is_file():
        loaded = orjson.loads(report_path.read_bytes())
        return ShardReport(**{**loaded, "parts": tuple(loaded["parts"])})
    dropped: Counter[str] = Counter()
    num_rows = num_malformed = num_copies = 0
    writer = _StagedWriter(task)
    with (
        replacing(task.staging / f"shard-{task.index:05d}.{DROPPED}") as path,
        path.open("wb") as dropped_file,
    ):
        for row in read_rows(task.source_config, task.files):
            num_rows += 1
            reason = _drop_reason(task.source_config, row)
            if isinstance(row, BadRow):
                num_malformed += 1
                entry = {"origin": row.origin, "reason": row.reason, "detail": row.detail}
                dropped_file.write(orjson.dumps(entry, option=orjson.OPT_APPEND_NEWLINE))
            if reason is None and isinstance(row, Row):
                writer.add(row)
                for copy in degraded_copies(task.source_config, row):
                    num_copies += 1
                    reason = _copy_drop_reason(task.source_config, copy)
                    if reason is None and copy is not None:
                        writer.add(copy, is_copy=True)
                    elif reason is not None:
                        dropped[reason] += 1
            elif reason is not None:
                dropped[reason] += 1
    report = ShardReport(
        num_rows=num_rows,
        dropped=dict(dropped),
        num_malformed=num_malformed,
        parts=tuple(writer.close()),
        num_copies=num_copies,
    )
    write_json(report_path, {name: getattr(report, name) for name in report.__slots__})
    return report


def _drop_reason(config: SourceConfig, row: Row | BadRow) -> str | None:
    if isinstance(row, BadRow):
        return row.reason
    if not row.text.strip():
        return "empty_text"
    if len(row.text) < config.min_chars:
        return "under_min_chars"
    if config.max_chars is not None and len(row.text) > config.max_chars:
        return "over_max_chars"
    return None


def _copy_drop_reason(config: SourceConfig, copy: Row | None) -> str | None:
    reason = "unchanged" if copy is None else _drop_reason(config, copy)
    return None if reason is None else f"copy_{reason}"


class _StagedWriter:
    """Cuts the rows of one shard into staged parts."""

    def __init__(self, task: ShardTask) -> None:
        self._task = task
        self._rows: list[dict[str, object]] = []
        self._num_bytes = 0
        self._parts: list[str] = []

    def add(self, row: Row, *, is_copy: bool = False) -> None:
        """Takes one row, and writes a part when it is full."""
        self._rows.append(
            {
                "content_hash": content_hash(
                    self._task.source_config.family, row.text, row.payload
                ),
                "family": self._task.source_config.family,
                "text": row.text,
                "payload": row.payload,
                "meta": row.meta,
                "control_spans": row.control_spans,
                "num_chars": len(row.text),
                "origin": row.origin,
                "is_copy": is_copy,
            }
        )
        self._num_bytes += sum(
            len(value.encode()) for value in (row.text, row.payload, row.meta) if value is not None
        )
        if len(self._rows) >= self._task.records_per_part or self._num_bytes >= PART_BYTES:
            self._flush()

    def close(self) -> list[str]:
        """Writes the rest and returns the names of all parts."""
        if self._rows:
            self._flush()
        return self._parts

    def _flush(self) -> None:
        name = f"shard-{self._task.index:05d}-{part_name(len(self._parts))}"
        table = pa.Table.from_pylist(self._rows, schema=STAGED_SCHEMA)
        write_parquet(self._task.staging / name, table)
        self._parts.append(name)
        self._rows, self._num_bytes = [], 0


def content_hash(family: str, text: str, payload: str | None) -> str:
    """Returns xxh3_128 of the canonical JSON of a record's content, 32 hex digits."""
    content = {"family": family, "payload": payload, "text": text}
    return xxhash.xxh3_128_hexdigest(orjson.dumps(content, option=orjson.OPT_SORT_KEYS))
