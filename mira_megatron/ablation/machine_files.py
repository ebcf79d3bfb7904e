"""The table for papers and spreadsheets: LaTeX and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence

from mira_megatron.ablation.estimates import BETTER, WORSE, Estimate, Gap
from mira_megatron.ablation.table import DIGITS, POINT_DIGITS, AblationTable, ArmRow
from mira_megatron.ablation.words import interval_text
from mira_megatron.eval.comparison.latex import latex_text
from mira_megatron.eval.comparison.table import BENCHMARKS
from mira_megatron.eval.statistics.intervals import Interval
from mira_megatron.written_numbers import decimal, grouped

_CSV_FIELDS = (
    "arm",
    "measure",
    "bits_per_byte",
    "pass_at_1",
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
_MISSING = "--"


def table_latex(table: AblationTable) -> str:
    """Returns tabular environments; they need the package booktabs."""
    lines = [
        "% Held-out bits per byte with 95 % intervals, by mira ablate. "
        "Needs \\usepackage{booktabs}.",
        *_tabular(
            ["", "tokens kept", "steps", *table.names],
            [
                [
                    _name(row),
                    _whole(row.tokens_kept),
                    _whole(row.num_steps),
                    *(_cell(row.bits[name], row.gaps.get(name), DIGITS) for name in table.names),
                ]
                for row in table.arms
            ],
        ),
    ]
    benchmarks = table.benchmarks
    if benchmarks is not None and benchmarks.headline is not None:
        # Averages of a part and languages are in the other files: a line has room for the nine.
        shown = [name for name in benchmarks.titles if name in (*BENCHMARKS, benchmarks.headline)]
        lines += [
            "",
            "% pass@1 in percent with 95 % intervals.",
            *_tabular(
                ["", *(benchmarks.titles[name] for name in shown)],
                [
                    [
                        _name(row),
                        *(
                            _cell(row.scores.get(name), row.score_gaps.get(name), POINT_DIGITS)
                            for name in shown
                        ),
                    ]
                    for row in table.arms
                ],
            ),
        ]
    if table.reference is not None:
        lines.append(f"% * differs from {table.reference} at 5 %, Holm-corrected")
    return "\n".join(lines) + "\n"


def table_csv(table: AblationTable) -> str:
    """Returns one row per arm and number, unrounded; empty where there is none."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(_CSV_FIELDS)
    for row in table.arms:
        for name in table.names:
            writer.writerow(_csv_row(row, name, row.bits, row.gaps, is_score=False))
        for name in row.scores:
            writer.writerow(_csv_row(row, name, row.scores, row.score_gaps, is_score=True))
    return file.getvalue()


def _csv_row(
    row: ArmRow,
    name: str,
    values: Mapping[str, Estimate],
    gaps: Mapping[str, Gap],
    *,
    is_score: bool,
) -> list[object]:
    estimate, gap = values[name], gaps.get(name)
    tested: list[object] = [None] * 6
    if gap is not None:
        tested = [gap.value, *_ends(gap.interval), gap.p, gap.p_holm, gap.verdict]
    value = [None, estimate.value] if is_score else [estimate.value, None]
    ends = _ends(estimate.interval)
    return [row.arm, name, *value, *ends, *tested, row.tokens_kept, row.num_steps]


def _tabular(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [
        rf"\begin{{tabular}}{{l{'r' * (len(headings) - 1)}}}",
        r"\toprule",
        _latex_row([latex_text(each) for each in headings]),
        r"\midrule",
        *(_latex_row(row) for row in rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]


def _name(row: ArmRow) -> str:
    return f"{{{latex_text(row.arm)}}}"


def _whole(number: int | None) -> str:
    return _MISSING if number is None else grouped(number)


def _cell(estimate: Estimate | None, gap: Gap | None, digits: int) -> str:
    if estimate is None:
        return _MISSING
    star = r"$^{\ast}$" if gap is not None and gap.verdict in (BETTER, WORSE) else ""
    interval = interval_text(estimate, digits)
    shown = rf" {{\scriptsize {interval}}}" if interval else ""
    return decimal(estimate.value, digits) + star + shown


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def _ends(interval: Interval | None) -> list[float | None]:
    return [None, None] if interval is None else [interval.low, interval.high]
