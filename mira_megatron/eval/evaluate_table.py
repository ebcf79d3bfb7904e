"""What `mira evaluate` prints: scores, categories, and what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mira_megatron.eval.comparison.table import MICRO, leaves
from mira_megatron.eval.scores import Score
from mira_megatron.eval.suite import Entry, Suite
from mira_megatron.eval.verdicts import Status

# Verdict names that averages are made of; a benchmark may give more (SQL's other protocols).
_AVERAGED = frozenset(leaves(MICRO))
_LOST = (Status.TRUNCATED, Status.NO_CODE, Status.TIMEOUT, Status.INFRA)


@dataclass(kw_only=True, slots=True)
class Outcome:
    """What became of one benchmark."""

    entry: Entry
    scores: list[Score] = field(default_factory=list)
    problem: str = ""

    def fail(self, problem: str) -> None:
        """Notes why there is no score."""
        self.problem = problem


def category_means(suite: Suite, outcomes: Sequence[Outcome]) -> dict[str, float | None]:
    """Returns the mean of each category in percent, None where one of its benchmarks is missing."""
    scores = {outcome.entry.name: outcome.scores for outcome in outcomes}
    means: dict[str, float | None] = {}
    for category in dict.fromkeys(entry.category for entry in suite.entries.values()):
        entries = [each for each in suite.entries.values() if each.category == category]
        given = [score for entry in entries for score in scores.get(entry.name, [])]
        found = [score for score in given if score.benchmark in _AVERAGED] or given
        is_whole = all(scores.get(entry.name) for entry in entries)
        means[category] = sum(each.pass_at_1 for each in found) / len(found) if is_whole else None
    return means


def print_table(
    console: Console,
    suite: Suite,
    outcomes: Sequence[Outcome],
    *,
    is_graded: bool,
    limit: int | None,
) -> None:
    """Prints a line per verdict name and category, or which benchmarks were generated.

    `limit`: only so many tasks of each benchmark were asked.
    """
    failed = [outcome.entry.name for outcome in outcomes if outcome.problem]
    if is_graded:
        console.print(_score_table(outcomes))
        console.print(_category_table(suite, outcomes))
        if limit is not None:
            _say(console, f"of the first {limit:,} tasks alone: no scores to compare with others")
    else:
        done = [outcome.entry.name for outcome in outcomes if not outcome.problem]
        _say(console, f"generated: {', '.join(done) or 'none'}")
    if failed:
        _say(console, f"failed: {', '.join(failed)}")


def _score_table(outcomes: Sequence[Outcome]) -> Table:
    table = Table(box=None, pad_edge=False)  # eight columns in 80 characters
    table.add_column("benchmark", no_wrap=True)
    for title in ("pass@1 %", "tasks", "samples", *_LOST):
        table.add_column(title, justify="right")
    for outcome in outcomes:
        for score in outcome.scores:
            lost = (f"{score.counts.get(status, 0):,}" for status in _LOST)
            cells = (f"{score.pass_at_1:.2f}", f"{score.num_tasks:,}", f"{score.num_samples:,}")
            table.add_row(Text(score.benchmark), *cells, *lost)
        if not outcome.scores:
            table.add_row(Text(outcome.entry.name), "-")
    return table


def _category_table(suite: Suite, outcomes: Sequence[Outcome]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("category", no_wrap=True)
    table.add_column("mean %", justify="right")
    table.add_column("missing")
    scored = {outcome.entry.name for outcome in outcomes if outcome.scores}
    for category, mean in category_means(suite, outcomes).items():
        missing = [
            entry.name
            for entry in suite.entries.values()
            if entry.category == category and entry.name not in scored
        ]
        table.add_row(
            Text(category), "-" if mean is None else f"{mean:.2f}", Text(", ".join(missing))
        )
    return table


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
