"""Traces for people, in the terminal, and for programs, as JSON lines."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from rich.console import Console
from rich.text import Text

from mira_megatron.provenance.record_uses import (
    DROPPED,
    FILLS_NO_SEQUENCE,
    HELD_OUT,
    NO_TOKENS,
    NOT_DRAWN,
    NOT_REACHED,
    TAIL,
    RecordUse,
    RecordUses,
)
from mira_megatron.provenance.trace import Trace, TracedSpan
from mira_megatron.written_numbers import MISSING, decimal, grouped

_REASONS = {
    HELD_OUT: "a validation document: no arm ever trains on it",
    NO_TOKENS: "an empty document: there is nothing to read",
    DROPPED: "the arm's keep mask drops it",
    FILLS_NO_SEQUENCE: "the kept documents of its prefix fill no sequence, so the blend has none",
    TAIL: "it lies after the last whole sample of its prefix",
    NOT_DRAWN: "the blend draws other samples of its prefix",
    NOT_REACHED: "its samples come after the last iteration",
}


def print_trace(console: Console, trace: Trace) -> None:
    """Prints a line per sample, its spans below it, then tokens and records per source."""
    of_rank = "all ranks" if trace.rank is None else f"data-parallel rank {trace.rank}"
    _print(console, f"Iteration {trace.iteration:,} of arm {trace.arm}, {of_rank}")
    _print(console, "batch/rank/row  sample  prefix")
    headings = ["in sample", "in document", "score", "source", "record"]
    spans = [_span_cells(span) for sample in trace.samples for span in sample.spans]
    heading, *rows = _aligned([headings, *spans], num_right=3)
    _print(console, f"  {heading}")
    of_spans = iter(rows)
    for sample in trace.samples:
        place = f"{sample.micro_batch}/{sample.rank}/{sample.row}"
        _print(console, f"{place}  {grouped(sample.sample)}  {sample.spans[0].prefix}")
        for _ in sample.spans:
            _print(console, f"  {next(of_spans)}")
    for line in _source_lines(trace):
        _print(console, line)
    _print(console, f"Indices: {trace.indices_from}")


def print_uses(console: Console, records: Sequence[RecordUses]) -> None:
    """Prints for each record what it is, and a line per sample that reads it, or why none does."""
    for record in records:
        score = record.score_reason if record.score is None else decimal(record.score)
        _print(
            console,
            f"{record.record_id} of {record.source}: document {grouped(record.document)} of "
            f"{record.prefix}, {grouped(record.num_document_tokens)} tokens, score "
            f"{score or MISSING}",
        )
        if record.never is not None:
            _print(console, f"never trained on by arm {record.arm}: {_REASONS[record.never]}")
            continue
        _print(console, f"{len(record.uses):,} samples of arm {record.arm} read it")
        headings = ["iteration", "batch/rank/row", "sample", "in sample", "in document"]
        uses = [_use_cells(use) for use in record.uses]
        for line in _aligned([headings, *uses], num_right=len(headings)):
            _print(console, f"  {line}")
        if record.num_tokens_unread:
            unread = grouped(record.num_tokens_unread)
            _print(console, f"{unread} of its tokens are in none of them")


def trace_lines(trace: Trace) -> Iterator[str]:
    """Yields one JSON object per span, with the place of its sample; nulls stay null."""
    for sample in trace.samples:
        place = {name: value for name, value in asdict(sample).items() if name != "spans"}
        for span in sample.spans:
            yield json.dumps({"arm": trace.arm, **place, **asdict(span)})


def uses_lines(records: Sequence[RecordUses]) -> Iterator[str]:
    """Yields one JSON object per use with its record; a record never used has one, without."""
    for record in records:
        content = {name: value for name, value in asdict(record).items() if name != "uses"}
        if not record.uses:
            yield json.dumps(content)
        for use in record.uses:
            yield json.dumps({**content, **asdict(use)})


def _print(console: Console, line: str) -> None:
    # Whole, at any width: an id that is cut or broken cannot be searched for.
    console.print(Text(line), soft_wrap=True)


def _aligned(rows: Sequence[Sequence[str]], *, num_right: int) -> list[str]:
    """Returns lines of columns as wide as their widest cell, the first `num_right` to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    sides = [">" if at < num_right else "<" for at in range(len(widths))]
    return [
        "  ".join(
            f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True)
        ).rstrip()
        for row in rows
    ]


def _span_cells(span: TracedSpan) -> list[str]:
    return [
        _range(span.sample_start, span.num_tokens),
        _range(span.document_start, span.num_tokens),
        decimal(span.score),
        span.source,
        span.record_id,
    ]


def _use_cells(use: RecordUse) -> list[str]:
    return [
        grouped(use.iteration),
        f"{use.micro_batch}/{use.rank}/{use.row}",
        grouped(use.sample),
        _range(use.sample_start, use.num_tokens),
        _range(use.document_start, use.num_tokens),
    ]


def _source_lines(trace: Trace) -> Iterator[str]:
    tokens: Counter[str] = Counter()
    records: dict[str, set[str]] = {}
    for sample in trace.samples:
        for span in sample.spans:
            tokens[span.source] += span.num_tokens
            records.setdefault(span.source, set()).add(span.record_id)
    for source, num_tokens in tokens.most_common():
        yield f"{source}: {num_tokens:,} tokens of {len(records[source]):,} records"


def _range(start: int, num_tokens: int) -> str:
    return f"{start:,}-{start + num_tokens - 1:,}"
