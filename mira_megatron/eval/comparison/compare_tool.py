"""`mira compare`: evaluations -> tables, tests and a page.

Reads   folders of `mira evaluate` or `mira grade` (outputs.py), a published table
Writes  OUTPUT/comparison.json, .md, .html, .tex; scores.csv, differences.csv, flips.csv

All are functions of what was read and the seed: no times, no machine.
"""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mira_megatron.atomic_files import write_bytes, write_json
from mira_megatron.eval.comparison.comparison import Comparison, Options, compare
from mira_megatron.eval.comparison.latex import comparison_latex
from mira_megatron.eval.comparison.machine_files import (
    comparison_json,
    differences_csv,
    flips_csv,
    scores_csv,
)
from mira_megatron.eval.comparison.markdown import comparison_markdown
from mira_megatron.eval.comparison.page import comparison_page
from mira_megatron.eval.comparison.table import MACRO, SUMMARY, title_of
from mira_megatron.eval.comparison.written import (
    interval_text,
    p_text,
    percent_text,
    points_interval_text,
    points_text,
)
from mira_megatron.written_tables import terminal_table

_HEADINGS = ("code gen", "MultiPL-E", "SQL", "SWE", "macro", "nine")  # of SUMMARY


def run(console: Console, options: Options, output: Path) -> int:
    """Compares, writes all files, prints the summary; returns 0.

    Raises ValueError or FileNotFoundError for what the user can fix, before anything is written.
    """
    comparison = compare(options)
    write_json(output / "comparison.json", comparison_json(comparison))
    for name, text in (
        ("comparison.md", comparison_markdown(comparison)),
        ("comparison.html", comparison_page(comparison)),
        ("comparison.tex", comparison_latex(comparison)),
        ("scores.csv", scores_csv(comparison)),
        ("differences.csv", differences_csv(comparison)),
        ("flips.csv", flips_csv(comparison)),
    ):
        write_bytes(output / name, text.encode("utf-8", "replace"))
    _print(console, comparison)
    console.print(Text(f"written to {output}: comparison.html, .md, .json, .tex and three tables"))
    return 0


def _print(console: Console, comparison: Comparison) -> None:
    if comparison.arms:
        table = terminal_table("Percent right; all intervals are in the files")
        table.add_column("arm", overflow="fold")
        for heading in (*_HEADINGS, "95 % of macro"):
            table.add_column(heading, justify="right", no_wrap=True)
        for each in comparison.arms:
            table.add_row(
                Text(each.arm.label),
                *(percent_text(each.scores[name].value) for name in SUMMARY),
                interval_text(each.scores[MACRO].interval),
            )
        console.print(table)
        console.print(_benchmark_table(comparison))
        for each in comparison.arms:
            graded = (score.graded for score in each.scores.values() if score.graded is not None)
            parts = sum(found.is_subset for found in graded)
            if parts:
                said = f"{each.arm.label}: {parts} of these over a part of the tasks alone"
                console.print(Text(f"{said}, so they are not the benchmarks' scores"))
            if (reason := each.scores[MACRO].reason) is not None:
                console.print(Text(f"{each.arm.label}: no macro average: {reason}"))
            if any(score.is_partial for score in each.scores.values()):
                console.print(Text(f"{each.arm.label}: of some of the tasks alone, see the files"))
    for pair in comparison.pairs:
        macro = pair.differences[MACRO]
        if macro.value is not None:
            console.print(
                Text(
                    f"{pair.other} minus {pair.baseline}: macro {points_text(macro.value)} "
                    f"{points_interval_text(macro.interval)}, p (Holm) {p_text(macro.p_holm)}"
                )
            )
    if comparison.published is not None:
        for finding in comparison.published.audit.findings:
            console.print(Text(f"{comparison.published.table.name}: {finding}"))


def _benchmark_table(comparison: Comparison) -> Table:
    """Returns what was graded, a line per verdict name: an evaluation may have no average."""
    table = terminal_table("Graded")
    table.add_column("benchmark", no_wrap=True)
    for each in comparison.arms:
        table.add_column(Text(each.arm.label), justify="right", overflow="fold")
    for name in comparison.names:
        scores = [each.scores.get(name) for each in comparison.arms]
        if any(score is not None and score.graded is not None for score in scores):
            values = [None if score is None else score.value for score in scores]
            table.add_row(title_of(name), *map(percent_text, values))
    return table
