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


PARTS_OF_THINK = ("think", "combined", "qa")  # card of QA-Group3: 5 anchors of each


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgment:
    """One point of a free-form judgement: a dimension that the teacher named, scored, explained."""

    record_id: str
    source: str
    part: str | None  # one of PARTS_OF_THINK for qa_with_think, None for the other families
    dimension: str  # as the teacher wrote it, on one line
    score: float  # 0-10
    reason: str
    model: str
    prompt_key: str


JUDGMENT_SCHEMA = pa.schema(
    [
        pa.field("record_id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("part", pa.string()),
        pa.field("dimension", pa.string(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("model", pa.string(), nullable=False),
        pa.field("prompt_key", pa.string(), nullable=False),
    ]
)

# One row per record asked about, so that an answer without a judgment is not lost either.
DISCOVERY_ANSWER_SCHEMA = pa.schema(
    [
        pa.field("record_id", pa.string(), nullable=False),
        pa.field("num_judgments", pa.int64(), nullable=False),
        pa.field("status", pa.string(), nullable=False),  # one of RATING_STATUSES
        pa.field("reason", pa.string()),  # why the status is not ok
        pa.field("view_policy", pa.string(), nullable=False),
        pa.field("num_record_tokens", pa.int64()),
        pa.field("num_shown_tokens", pa.int64()),
        pa.field("num_attempts", pa.int64(), nullable=False),
        pa.field("num_prompt_tokens", pa.int64()),
        pa.field("num_output_tokens", pa.int64()),
        pa.field("raw", pa.large_string()),
        pa.field("reasoning", pa.large_string()),  # a reasoning teacher's; stored, never parsed
    ]
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Medoid:
    """The judgment nearest to its cluster's centre; its dimension is the anchor's name."""

    record_id: str
    source: str
    score: float  # 0-10
    reason: str


LEVELS = ("low", "middle", "high")  # of calibration references


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """A calibration example of an anchor: what a low, middle or high score looked like."""

    level: str  # low | middle | high
    record_id: str | None
    source: str | None
    score: float  # 0-10
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Anchor:
    """One slot of a group's rubric."""

    anchor_id: str  # A1..A15, largest cluster first (within its part, for qa_with_think)
    name: str  # verbatim from the medoid judgment; names may repeat
    description: str | None  # what a person added; None as found
    part: str | None  # one of PARTS_OF_THINK, or None
    cluster_size: int | None  # judgments; None for anchors that no clustering made
    aliases: tuple[tuple[str, int], ...]  # other names in the cluster with counts, most first
    medoid: Medoid | None
    references: tuple[Reference, ...]  # low to high; empty below the top 12
    rubric_version: str  # of the whole file: changes with any of its anchors


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
    view_policy: str  # how much of the record the judge saw: one of rubric.views.POLICIES
    num_record_tokens: int | None  # in the scorer's tokens; None where no limit was set
    num_shown_tokens: int | None
    num_attempts: int  # answers asked for, the last of which is this one
    raw: str | None  # the answer as received, so that parsing can be redone
    reasoning: str | None  # a reasoning model's; stored, never parsed as the answer


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
        pa.field("view_policy", pa.string(), nullable=False),
        pa.field("num_record_tokens", pa.int64()),
        pa.field("num_shown_tokens", pa.int64()),
        pa.field("num_attempts", pa.int64(), nullable=False),
        pa.field("raw", pa.large_string()),
        pa.field("reasoning", pa.large_string()),
    ]
)

DISTILL, RELIABILITY = "distill", "reliability"  # halves: to learn from, to be compared with
# A teacher's ratings say which half of the sample a record belongs to: distill or reliability.
TEACHER_RATING_SCHEMA = RATING_SCHEMA.append(pa.field("split", pa.string(), nullable=False))

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
