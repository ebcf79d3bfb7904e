"""One part of a source's labels made into samples in scratch: what processes do side by side.

<part>.jsonl           the samples' lines, in the order of the records
<part>.index.parquet   one row per labelled record of the distill half, written last: a part that
                       has it is finished, and a killed run goes on with the next
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mira_megatron.atomic_files import replacing
from mira_megatron.distill.distill_config import DistillConfig
from mira_megatron.distill.scorer_tokenizer import ScorerTokenizer
from mira_megatron.distill.sft_order import is_validation, order_key
from mira_megatron.distill.sft_rows import (
    Dropped,
    RatedPart,
    Sample,
    SampleMaker,
    distill_half,
    records_of,
)
from mira_megatron.records import Anchor
from mira_megatron.rubric.views import ViewMaker
from mira_megatron.shards import write_parquet

INDEX_SCHEMA = pa.schema(
    [
        pa.field("record_id", pa.string(), nullable=False),
        pa.field("reason", pa.string()),  # why there is no sample; all below is null then
        pa.field("detail", pa.string()),
        pa.field("order_key", pa.uint64()),
        pa.field("is_validation", pa.bool_()),
        pa.field("offset", pa.int64()),  # of its line in <part>.jsonl
        pa.field("num_bytes", pa.int64()),
        pa.field("num_prompt_tokens", pa.int64()),
        pa.field("num_answer_tokens", pa.int64()),
        pa.field("is_whole", pa.bool_()),
    ]
)
_NUM_HELD_BACK = b"num_held_back"


@dataclass(frozen=True, kw_only=True, slots=True)
class PartTask:
    """What it takes to make one part's samples."""

    part: RatedPart
    scratch: Path
    family: str
    anchors: tuple[Anchor, ...]
    tokenizer: Path
    config: DistillConfig
    seed: int


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexedPart:
    """A part's samples on disk, and what there is to know about them."""

    source: str
    lines: Path
    index: pa.Table  # of INDEX_SCHEMA
    num_held_back: int  # labelled records of the reliability half


def make_part(task: PartTask) -> IndexedPart:
    """Writes one part's samples and index where they are not there yet."""
    folder = task.scratch / task.part.source
    lines, index = (folder / f"{task.part.name}{suffix}" for suffix in (".jsonl", ".index.parquet"))
    if not index.is_file():
        _write_part(task, lines, index)
    table = pq.read_table(index)
    return IndexedPart(
        source=task.part.source,
        lines=lines,
        index=table,
        num_held_back=int(table.schema.metadata[_NUM_HELD_BACK]),
    )


def _write_part(task: PartTask, lines: Path, index: Path) -> None:
    ratings, num_held_back = distill_half(task.part)
    rows: list[dict[str, Any]] = []
    offset = 0
    with replacing(lines) as temporary, temporary.open("wb") as file:
        for made in _samples(task, ratings):
            if isinstance(made, Dropped):
                rows.append(
                    {"record_id": made.record_id, "reason": made.reason, "detail": made.detail}
                )
                continue
            line = made.row.line()
            file.write(line)
            rows.append(_index_row(made, task, offset, len(line)))
            offset += len(line)
    schema = INDEX_SCHEMA.with_metadata({_NUM_HELD_BACK: str(num_held_back)})
    write_parquet(index, pa.Table.from_pylist(rows, schema=schema))


def _samples(task: PartTask, ratings: list[dict[str, Any]]) -> Iterator[Sample | Dropped]:
    rating_of = {rating["record_id"]: rating for rating in ratings}
    maker = _sample_maker(task.family, task.anchors, task.tokenizer, task.config)
    for record in records_of(task.part, list(rating_of)):
        yield maker.sample(record, rating_of[record.record_id])


@lru_cache(maxsize=1)  # a tokenizer of 150,000 tokens takes longer to load than a part to make
def _sample_maker(
    family: str, anchors: tuple[Anchor, ...], tokenizer: Path, config: DistillConfig
) -> SampleMaker:
    return SampleMaker(
        family=family,
        anchors=anchors,
        form=config.form,
        view_maker=ViewMaker(config.max_record_tokens, tokenizer),
        tokenizer=ScorerTokenizer(tokenizer),
        sequence_length=config.sequence_length,
    )


def _index_row(sample: Sample, task: PartTask, offset: int, num_bytes: int) -> dict[str, Any]:
    fraction = task.config.validation_fraction
    return {
        "record_id": sample.row.record_id,
        "order_key": order_key(sample.row.record_id, task.seed),
        "is_validation": is_validation(sample.content_hash, task.seed, fraction),
        "offset": offset,
        "num_bytes": num_bytes,
        "num_prompt_tokens": sample.num_prompt_tokens,
        "num_answer_tokens": sample.num_answer_tokens,
        "is_whole": sample.is_whole,
    }
