"""One part of a corpus, looked through: which of its records have how much of which surface.

Reads   records/<source>/part-*.parquet: record_id, text; its digest is checked
Writes  parts/<source>/part-*.parquet: HIT_SCHEMA, one row per record and surface with a score of at
        least MIN_SCORE; its metadata say what was looked for and in what, so that a part is
        not scanned twice
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mira_megatron.eval.contamination.arrays import I64, U8
from mira_megatron.eval.contamination.items import MIN_SCORE
from mira_megatron.eval.contamination.matching import find
from mira_megatron.eval.contamination.needles import Needles, open_needles
from mira_megatron.eval.contamination.postings import SurfaceHit, hits_of
from mira_megatron.shards import open_part, write_parquet

_ROWS_PER_BATCH = 1024

HIT_SCHEMA = pa.schema(
    [
        pa.field("record_id", pa.string(), nullable=False),
        pa.field("benchmark", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("task_id", pa.string(), nullable=False),
        pa.field("surface", pa.string(), nullable=False),
        pa.field("score", pa.float64(), nullable=False),  # in (0, 1]
        pa.field("start", pa.int64(), nullable=False),  # characters of the record's text
        pa.field("end", pa.int64(), nullable=False),
    ]
)


@dataclass(frozen=True, kw_only=True, slots=True)
class PartTask:
    """One part to be looked through."""

    part: Path
    digest: str  # of the part, by its manifest
    needles: Path  # a folder of `save_needles`
    needles_digest: str
    output: Path


@dataclass(frozen=True, kw_only=True, slots=True)
class ScannedPart:
    """What became of a part."""

    num_hits: int
    is_anew: bool  # False: an earlier run had scanned it


def scan_part(task: PartTask) -> ScannedPart:
    """Writes the hits of one part, unless they are there. Raises ValueError for changed bytes."""
    found = _scanned_before(task)
    if found is not None:
        return ScannedPart(num_hits=found, is_anew=False)
    needles = _needles(task.needles)
    rows: list[dict[str, object]] = []
    file = open_part(task.part, task.digest)
    for batch in file.iter_batches(batch_size=_ROWS_PER_BATCH, columns=["record_id", "text"]):
        rows += batch_hits(batch, needles)
    table = pa.Table.from_pylist(rows, schema=HIT_SCHEMA)
    write_parquet(task.output, table.replace_schema_metadata(_metadata(task)))
    return ScannedPart(num_hits=len(rows), is_anew=True)


def batch_hits(batch: pa.RecordBatch, needles: Needles) -> Iterator[dict[str, object]]:
    """Yields the rows of HIT_SCHEMA of a batch with columns record_id and text."""
    content_B, offset_D1 = _bytes_of(batch.column("text"))
    found = find(content_B, offset_D1, needles)
    hits = hits_of(found.phrases, needles.phrases.postings, offset_D1, MIN_SCORE)
    for form, matches in found.ngrams.items():
        hits += hits_of(matches, needles.ngrams[form].postings, offset_D1, MIN_SCORE)
    if len(found.query_starts):
        hits += _query_hits(content_B, offset_D1, found.query_starts, needles)
    record_ids = batch.column("record_id")
    for hit in sorted(hits, key=lambda hit: (hit.document, hit.surface)):
        surface = needles.surfaces[hit.surface]
        first = int(offset_D1[hit.document])
        yield {
            "record_id": record_ids[hit.document].as_py(),
            "benchmark": surface.benchmark,
            "split": surface.split,
            "task_id": surface.task_id,
            "surface": surface.kind,
            "score": hit.score,
            "start": _num_chars(content_B[first : hit.start]),
            "end": _num_chars(content_B[first : hit.end]),
        }


def _query_hits(
    content_B: U8, offset_D1: I64, start_Q: I64, needles: Needles
) -> Iterator[SurfaceHit]:
    """Yields the surfaces that are whole queries of a document, each once."""
    sql = importlib.import_module("mira_megatron.eval.contamination.sql_queries")
    document_Q = np.searchsorted(offset_D1, start_Q, side="right") - 1
    for document in np.unique(document_Q).tolist():
        first, last = int(offset_D1[document]), int(offset_D1[document + 1])
        text = _text(content_B[first:last])
        # Of the character that begins at a byte: without the bytes before it that begin none.
        inner_B = np.flatnonzero((content_B[first:last] & 0xC0) == 0x80)
        begins = start_Q[document_Q == document] - first
        starts = (begins - np.searchsorted(inner_B, begins)).tolist()
        seen = set[int]()
        for query in sql.query_hits(text, starts, needles.queries, needles.tables):
            for surface in needles.queries[query.key]:
                if surface not in seen:
                    seen.add(surface)
                    yield SurfaceHit(
                        document=document,
                        surface=surface,
                        score=1.0,
                        start=first + len(_utf8(text[: query.start])),
                        end=first + len(_utf8(text[: query.end])),
                    )


def _bytes_of(texts: pa.LargeStringArray) -> tuple[U8, I64]:
    """Returns the UTF-8 of a column, without a copy, and where each text begins and the last ends.

    Texts lie one behind the other, and a column of none has no buffer.
    """
    _, offsets, content = texts.buffers()
    offset_D1 = np.frombuffer(offsets, dtype=np.int64)[texts.offset : texts.offset + len(texts) + 1]
    first, last = int(offset_D1[0]), int(offset_D1[-1])
    if content is None or first == last:
        return np.zeros(0, dtype=np.uint8), offset_D1 - first
    return np.frombuffer(content, dtype=np.uint8)[first:last], offset_D1 - first


def _num_chars(content_B: U8) -> int:
    return int(np.count_nonzero((content_B & 0xC0) != 0x80))


def _text(content_B: U8) -> str:
    return content_B.tobytes().decode("utf-8", "replace")


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _metadata(task: PartTask) -> dict[bytes, bytes]:
    return {b"part": task.digest.encode(), b"needles": task.needles_digest.encode()}


def _scanned_before(task: PartTask) -> int | None:
    """Returns the number of hits of an earlier scan of the same for the same."""
    if not task.output.is_file():
        return None
    try:
        file: Any = pq.ParquetFile(task.output)
    except pa.ArrowException:
        return None
    found = file.schema_arrow.metadata or {}
    wanted = _metadata(task)
    is_same = all(found.get(key) == value for key, value in wanted.items())
    return int(file.metadata.num_rows) if is_same else None


@lru_cache(maxsize=1)
def _needles(folder: Path) -> Needles:
    return open_needles(folder)
