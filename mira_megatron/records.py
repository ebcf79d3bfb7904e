"""The rows that travel between stages, and the Arrow schema of each on disk.

Dictionaries live only at the JSON / Parquet boundary; they become one of these classes there, once.
Missing is None plus a reason.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

FAMILIES = ("text", "qa", "qa_with_think", "agent")
NUM_SLOTS = 15  # anchors per source group, paper section 3 (A1..A15)


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One corpus row; it becomes exactly one Megatron document."""

    record_id: str  # xxh3_128 of source and content_hash; exact duplicates get -1, -2 …
    content_hash: str  # 32 hex digits: xxh3_128 of the canonical JSON of family, text, payload
    source: str
    family: str  # one of FAMILIES
    text: str  # what is trained on
    payload: str | None  # JSON: question/think/answer, or messages; None for text
    meta: str | None  # JSON passed through
    control_spans: tuple[int, ...]  # start, end … of control tokens a renderer wrote in text
    num_chars: int
    origin: str  # file and row


RECORD_SCHEMA = pa.schema(
    [
        pa.field("record_id", pa.string(), nullable=False),
        pa.field("content_hash", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("family", pa.string(), nullable=False),
        pa.field("text", pa.large_string(), nullable=False),
        pa.field("payload", pa.large_string()),
        pa.field("meta", pa.large_string()),
        pa.field("control_spans", pa.list_(pa.int64()), nullable=False),
        pa.field("num_chars", pa.int64(), nullable=False),
        pa.field("origin", pa.string(), nullable=False),
    ]
)


def records_from_table(table: pa.Table) -> list[Record]:
    """Returns the rows of a RECORD_SCHEMA table as records."""
    return [
        Record(**{**row, "control_spans": tuple(row["control_spans"])}) for row in table.to_pylist()
    ]


RATING_STATUSES = ("ok", "partial", "unparsed", "too_long", "refused", "failed")


@dataclass(frozen=True, kw_only=True, slots=True)
class Rating:
    """One judge's answer about one record: a score 0-10 and a rationale per anchor slot."""

    record_id: str
    content_key: str  # xxh3_128 of record view, prompt, anchors, model and sampling
    model: str
    prompt_key: str
    answer_mode: str
    scores: tuple[float | None, ...]  # NUM_SLOTS values, 0-10 or None
    rationales: tuple[str | None, ...]  # NUM_SLOTS values
    overall: float | None  # 0-100
    training_recommendation: str | None  # keep | downsample | drop
    domain_tag: str | None
    brief: str | None
    status: str  # one of RATING_STATUSES
    reason: str | None  # why the status is not ok
    num_prompt_tokens: int | None
    num_output_tokens: int | None
    raw: str | None  # the answer as received, so that parsing can be redone


RATING_SCHEMA = pa.schema(
    [
        pa.field("record_id", pa.string(), nullable=False),
        pa.field("content_key", pa.string(), nullable=False),
        pa.field("model", pa.string(), nullable=False),
        pa.field("prompt_key", pa.string(), nullable=False),
        pa.field("answer_mode", pa.string(), nullable=False),
        pa.field("scores", pa.list_(pa.float32(), NUM_SLOTS), nullable=False),
        pa.field("rationales", pa.list_(pa.string(), NUM_SLOTS), nullable=False),
        pa.field("overall", pa.float32()),
        pa.field("training_recommendation", pa.string()),
        pa.field("domain_tag", pa.string()),
        pa.field("brief", pa.string()),
        pa.field("status", pa.string(), nullable=False),
        pa.field("reason", pa.string()),
        pa.field("num_prompt_tokens", pa.int64()),
        pa.field("num_output_tokens", pa.int64()),
        pa.field("raw", pa.large_string()),
    ]
)


RECORD_SCORE_SCHEMA = pa.schema(
    [
        pa.field("record_id", pa.string(), nullable=False),
        pa.field("score", pa.float32()),  # 0-10, or null …
        pa.field("reason", pa.string()),  # … and then why
    ]
)

# Row i describes document i of the token dataset beside it.
DOCUMENT_SCHEMA = pa.schema(
    [
        pa.field("record_id", pa.string(), nullable=False),
        pa.field("num_tokens", pa.int64(), nullable=False),  # as in the .idx, EOD included
        pa.field("is_validation", pa.bool_(), nullable=False),
        pa.field("text_hash", pa.binary(16), nullable=False),  # xxh3_128 of the text's UTF-8
    ]
)
