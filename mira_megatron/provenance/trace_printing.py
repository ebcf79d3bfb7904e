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
    RecordUses,
)
from mira_megatron.provenance.trace import Trace, TracedSpan
from mira_megatron.written_numbers import MISSING, decimal, grouped
from mira_megatron.written_tables import terminal_table

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
    """Prints a row per span of every sample, then tokens and records per source."""
    of_rank = "all ranks" if trace.rank is None else f"data-parallel rank {trace.rank}"
    table = terminal_table(f"Iteration {trace.iteration:,} of arm {trace.arm}, {of_rank}")
    for heading in ("Batch", "Rank", "Row", "Sample", "Tokens", "of its tokens", "Score"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("Source", overflow="fold")
    table.add_column("Record", no_wrap=True)
    for sample in trace.samples:
        place = [str(sample.micro_batch), str(sample.rank), str(sample.row), grouped(sample.sample)]
        for span in sample.spans:
            table.add_row(*map(Text, [*place, *_span_cells(span)]))
            place = [""] * len(place)  # told once per sample
    console.print(table)
    for line in _source_lines(trace):
        console.print(Text(line), soft_wrap=True)
    console.print(Text(f"Indices: {trace.indices_from}"), soft_wrap=True)


def print_uses(console: Console, records: Sequence[RecordUses]) -> None:
    """Prints for each record what it is, and a row per sample that reads it, or why none does."""
    for record in records:
        score = record.score_reason if record.score is None else decimal(record.score)
        num_tokens = grouped(record.num_document_tokens)
        console.print(
            Text(
                f"{record.record_id} of {record.source}: document {grouped(record.document)} of "
                f"{record.prefix}, {num_tokens} tokens, score {score or MISSING}"
            ),
            soft_wrap=True,
        )
        if record.never is not None:
            why = Text(f"never trained on by arm {record.arm}: {_REASONS[record.never]}")
            console.print(why, soft_wrap=True)
            continue
        table = terminal_table(f"{len(record.uses):,} samples of arm {record.arm} read it")
        for heading in ("Iteration", "Batch", "Rank", "Row", "Sample", "Tokens", "of its tokens"):
            table.add_column(heading, justify="right", no_wrap=True)
        for use in record.uses:
            table.add_row(
                grouped(use.iteration),
                *map(str, (use.micro_batch, use.rank, use.row)),
                grouped(use.sample),
                _range(use.sample_start, use.num_tokens),
                _range(use.document_start, use.num_tokens),
            )
        console.print(table)
        if record.num_tokens_unread:
            unread = f"{grouped(record.num_tokens_unread)} of its tokens are in none of them"
            console.print(Text(unread), soft_wrap=True)


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


def _span_cells(span: TracedSpan) -> list[str]:
    return [
        _range(span.sample_start, span.num_tokens),
        _range(span.document_start, span.num_tokens),
        decimal(span.score),
        span.source,
        span.record_id,
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
