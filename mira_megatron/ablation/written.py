"""The table for people: Markdown, LaTeX, CSV, and a page without scripts."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from mira_megatron.ablation.bits import MEAN, Estimate, Gap
from mira_megatron.ablation.table import DIGITS, AblationTable, findings
from mira_megatron.eval.comparison.latex import latex_text
from mira_megatron.eval.comparison.written import p_text, points_text
from mira_megatron.eval.statistics.intervals import Interval
from mira_megatron.report.rendering import render
from mira_megatron.written_numbers import MISSING, decimal, grouped
from mira_megatron.written_tables import markdown_table, markdown_text

_FOLDER = Path(__file__).parent
_CSV_FIELDS = (
    "arm",
    "measure",
    "bits_per_byte",
    "low",
    "high",
    "difference",
    "difference_low",
    "difference_high",
    "p",
    "p_holm",
    "verdict",
    "tokens_kept",
    "num_steps",
)


def bits_text(estimate: Estimate) -> str:
    """Returns 1.2345 [1.2001, 1.2689]."""
    return " ".join(filter(None, (decimal(estimate.value, DIGITS), _interval(estimate.interval))))


def gap_text(gap: Gap) -> str:
    """Returns a difference with its sign."""
    return points_text(gap.value, DIGITS)


def gap_interval_text(gap: Gap) -> str:
    """Returns a difference's interval with signs; nothing where there is none."""
    if gap.interval is None:
        return ""
    return f"[{points_text(gap.interval.low, DIGITS)}, {points_text(gap.interval.high, DIGITS)}]"


def basis_text(table: AblationTable) -> str:
    """Returns what the numbers stand on, in a sentence or two."""
    num = len(table.seeds)
    seeds = f"mean over {num} seeds" if num > 1 else "one seed"
    drawn = "documents and seeds" if num > 1 else "documents"
    return (
        f"Held-out loss in bits per byte, lower is better; {seeds}. 95 % intervals from "
        f"{table.resamples:,} resamples of {drawn}."
    )


def table_markdown(table: AblationTable) -> str:
    """Returns the document."""
    lines = [
        f"# Ablation: {markdown_text(table.recipe_name)}",
        "",
        basis_text(table),
        "",
        *(f"* {markdown_text(each)}" for each in findings(table)),
        "",
        *_arms(table),
        "",
        *_gaps(table),
        "## Kept tokens in common",
        "",
        *markdown_table(
            ["arm", "other arm", "tokens in both", "Jaccard"],
            [
                [
                    markdown_text(pair.arm),
                    markdown_text(pair.other),
                    grouped(pair.tokens_in_both),
                    decimal(pair.jaccard, 3),
                ]
                for pair in table.overlaps
            ],
        ),
        "",
        "## Mean length of documents, in tokens",
        "",
        *markdown_table(
            ["arm", "candidates", "kept"],
            [
                [
                    markdown_text(row.arm),
                    decimal(row.mean_length_of_candidates, 1),
                    decimal(row.mean_length, 1),
                ]
                for row in table.arms
                if row.tokens_kept is not None
            ],
        ),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _arms(table: AblationTable) -> list[str]:
    rows = [
        [
            markdown_text(row.arm),
            grouped(row.tokens_kept),
            grouped(row.num_steps),
            *(bits_text(row.bits[name]) for name in table.names),
        ]
        for row in table.arms
    ]
    return markdown_table(
        ["arm", "tokens kept", "steps", *(markdown_text(name) for name in table.names)], rows
    )


def _gaps(table: AblationTable) -> list[str]:
    if table.reference is None:
        return []
    rows = [
        [
            markdown_text(row.arm),
            markdown_text(name),
            gap_text(gap := row.gaps[name]),
            gap_interval_text(gap),
            p_text(gap.p),
            p_text(gap.p_holm),
            gap.verdict,
        ]
        for name in [MEAN, *table.num_documents]
        for row in table.compared
    ]
    return [
        f"## Minus {markdown_text(table.reference)}",
        "",
        "Paired by document and seed; Student's t over seeds; Holm over all arms, the mean and the "
        "groups each for themselves.",
        "",
        *markdown_table(
            ["arm", "on", "difference", "95 % interval", "p", "p (Holm)", ""],
            rows,
        ),
        "",
    ]


def table_latex(table: AblationTable) -> str:
    """Returns a table environment; needs the package booktabs."""
    headings = ["", "tokens kept", "steps", *table.names]
    lines = [
        "% Held-out bits per byte with 95 % intervals, by mira ablate. "
        "Needs \\usepackage{booktabs}.",
        rf"\begin{{tabular}}{{l{'r' * (len(headings) - 1)}}}",
        r"\toprule",
        _latex_row([latex_text(each) for each in headings]),
        r"\midrule",
        *(
            _latex_row(
                [
                    f"{{{latex_text(row.arm)}}}",
                    grouped(row.tokens_kept) if row.tokens_kept is not None else "--",
                    grouped(row.num_steps) if row.num_steps is not None else "--",
                    *(_latex_cell(row.bits[name], row.gaps.get(name)) for name in table.names),
                ]
            )
            for row in table.arms
        ),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    if table.reference is not None:
        lines.append(f"% * differs from {table.reference} at 5 %, Holm-corrected")
    return "\n".join(lines) + "\n"


def _latex_cell(estimate: Estimate, gap: Gap | None) -> str:
    star = r"$^{\ast}$" if gap is not None and gap.verdict in ("better", "worse") else ""
    interval = _interval(estimate.interval)
    shown = rf" {{\scriptsize {interval}}}" if interval else ""
    return decimal(estimate.value, DIGITS) + star + shown


def _latex_row(cells: list[str]) -> str:
    return " & ".join(cells) + r" \\"


def table_csv(table: AblationTable) -> str:
    """Returns one row per arm and number, unrounded; empty where there is none."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(_CSV_FIELDS)
    for row in table.arms:
        for name in table.names:
            estimate, gap = row.bits[name], row.gaps.get(name)
            tested = (
                [None] * 6
                if gap is None
                else [
                    gap.value,
                    *_ends(gap.interval),
                    gap.p,
                    gap.p_holm,
                    gap.verdict,
                ]
            )
            writer.writerow(
                [
                    row.arm,
                    name,
                    estimate.value,
                    *_ends(estimate.interval),
                    *tested,
                    row.tokens_kept,
                    row.num_steps,
                ]
            )
    return file.getvalue()


def page_html(table: AblationTable) -> str:
    """Returns the page: self-contained, nothing fetched, no script at all."""
    context = {
        "table": table,
        "findings": findings(table),
        "basis": basis_text(table),
        "mean": MEAN,
        "missing": MISSING,
        "bits_text": bits_text,
        "gap_text": gap_text,
        "gap_interval_text": gap_interval_text,
        "p_text": p_text,
    }
    return render("page.html.j2", context, _FOLDER)


def _ends(interval: Interval | None) -> list[float | None]:
    return [None, None] if interval is None else [interval.low, interval.high]


def _interval(interval: Interval | None) -> str:
    if interval is None:
        return ""
    return f"[{decimal(interval.low, DIGITS)}, {decimal(interval.high, DIGITS)}]"
