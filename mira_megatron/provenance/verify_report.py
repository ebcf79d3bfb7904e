"""What `mira tokens verify` found, as values and as tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mira_megatron.written_numbers import grouped
from mira_megatron.written_tables import terminal_table

_MAX_TAILS = 30  # rows printed; the report holds all


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """Something that is not as a training needs it."""

    arm: str  # "" for a blend that is no arm's
    split: str  # "" where it concerns both
    name: str  # of the prefix: the source's, or <source>.<i>
    what: str
    expected: str
    num_documents: int = 0
    record_ids: tuple[str, ...] = ()  # the first ones; document numbers where there are no ids


@dataclass(frozen=True, kw_only=True, slots=True)
class TimesSeen:
    """How many documents are read from end to end this many times."""

    times: int
    num_documents: int
    num_tokens: int  # of these documents, each counted once


@dataclass(frozen=True, kw_only=True, slots=True)
class TailDocument:
    """A document of which training does not read everything."""

    record_id: str
    num_tokens_unseen: int  # over all the times that it is listed


@dataclass(frozen=True, kw_only=True, slots=True)
class PrefixReport:
    """What training reads of one prefix of a split."""

    arm: str
    split: str
    name: str
    path_prefix: str
    num_documents: int  # listed, each counted once; without tokens they do not count
    num_tokens: int  # of these, each counted once
    num_samples: int  # that Megatron built
    num_drawn: int  # of these, that training reads
    num_epochs: int  # that Megatron laid end to end
    num_tokens_read: int  # repetitions included
    times_seen: tuple[TimesSeen, ...]  # ascending
    num_unseen: int  # documents of which no token is read
    num_repeated: int  # documents read in full more often than the selection says
    tail: tuple[TailDocument, ...]  # of a single pass; empty where samples are left undrawn

    @property
    def num_tail_tokens(self) -> int:
        """Returns the tokens of a single pass that fill no sample."""
        return sum(document.num_tokens_unseen for document in self.tail)


@dataclass(frozen=True, kw_only=True, slots=True)
class VerifyReport:
    """The proof, or what stands against it."""

    arms: tuple[str, ...]
    problems: tuple[Problem, ...]
    prefixes: tuple[PrefixReport, ...]
    notes: tuple[str, ...]  # true and no problem: prefixes left out, what was only sampled

    @property
    def ok(self) -> bool:
        """Returns whether nothing stands against the proof."""
        return not self.problems


def repetition_notes(reports: Sequence[PrefixReport]) -> list[str]:
    """Returns a line for every prefix of which training reads more than one pass."""
    return [
        f"{' '.join(part for part in (row.arm, row.split, row.name) if part)}: {row.num_epochs:,} "
        f"passes are built for what is asked; {row.num_repeated:,} of {row.num_documents:,} "
        "documents are read more often than one pass reads them"
        for row in reports
        if row.num_epochs > 1
    ]


def print_verify(console: Console, report: VerifyReport) -> None:
    """Prints what is seen how often, the tails, and every problem."""
    _print_prefixes(console, report.prefixes)
    for note in report.notes:
        console.print(Text(f"Note: {note}", style="dim"))
    for problem in report.problems:
        where = " ".join(part for part in (problem.arm, problem.split, problem.name) if part)
        console.print(Text(f"Problem: {where}: {problem.what}", style="bold red"))
        console.print(Text(f"  expected: {problem.expected}"))
        if problem.record_ids:
            more = problem.num_documents - len(problem.record_ids)
            others = f" and {more:,} more" if more > 0 else ""
            console.print(Text(f"  {', '.join(problem.record_ids)}{others}"))
    verdict = "verified" if report.ok else f"{len(report.problems):,} problems"
    console.print(Text(verdict, style="bold green" if report.ok else "bold red"))


def _print_prefixes(console: Console, prefixes: Sequence[PrefixReport]) -> None:
    for (arm, split), rows in _by_split(prefixes).items():
        console.print(_split_table(f"{arm} {split}".strip(), rows))
        documents: Counter[int] = Counter()
        for row in rows:
            documents.update({level.times: level.num_documents for level in row.times_seen})
        seen = [f"{num:,} {_often(times)}" for times, num in sorted(documents.items())]
        console.print(Text(f"Documents read from end to end: {', '.join(reversed(seen))}"))
        _print_tails(console, rows)


def _often(times: int) -> str:
    match times:
        case 0:
            return "not"
        case 1:
            return "once"
        case _:
            return f"{times:,} times"


def _by_split(
    prefixes: Sequence[PrefixReport],
) -> dict[tuple[str, str], list[PrefixReport]]:
    rows: dict[tuple[str, str], list[PrefixReport]] = {}
    for prefix in prefixes:
        rows.setdefault((prefix.arm, prefix.split), []).append(prefix)
    return rows


def _split_table(title: str, rows: Sequence[PrefixReport]) -> Table:
    """Returns a line per prefix; what is as it always is of one pass has no column."""
    columns = {
        "Documents": [row.num_documents for row in rows],
        "Tokens": [row.num_tokens for row in rows],
        "Samples": [row.num_samples for row in rows],
        "Tail": [row.num_tail_tokens for row in rows],
    }
    if any(row.num_drawn != row.num_samples for row in rows):
        columns["Drawn"] = [row.num_drawn for row in rows]
    if any(row.num_epochs != 1 for row in rows):
        columns["Passes"] = [row.num_epochs for row in rows]
    columns["Unseen"] = [row.num_unseen for row in rows]
    if any(row.num_repeated for row in rows):
        columns["Repeated"] = [row.num_repeated for row in rows]
    table = terminal_table(title)
    table.add_column("Prefix", overflow="fold", min_width=8)
    for heading in columns:
        table.add_column(heading, justify="right", no_wrap=True)
    for row, numbers in zip(rows, zip(*columns.values(), strict=True), strict=True):
        table.add_row(*map(Text, [row.name, *map(grouped, numbers)]))
    return table


def _print_tails(console: Console, rows: Sequence[PrefixReport]) -> None:
    tails = [(row, document) for row in rows for document in row.tail]
    for row, document in tails[:_MAX_TAILS]:
        left = f"{document.num_tokens_unseen:,} tokens of {document.record_id}"
        console.print(Text(f"Tail of {row.name}: {left}"))
    if len(tails) > _MAX_TAILS:
        console.print(Text(f"Tails: {len(tails) - _MAX_TAILS:,} more documents"))
